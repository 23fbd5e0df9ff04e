"""Pages that a person opens: each is one HTML file that needs nothing beside it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def render_template(template: Path, **values: Any) -> str:
    """Fill a Jinja template; every value is escaped but markup, and one that is missing is an error.

    A page extends `layout.html.j2`, which holds what all pages have in common, and fills its blocks. Filter `utc`
    writes a moment as `2026-11-20 14:05`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["utc"] = _utc
    return environment.get_template(template.name).render(**values)


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
