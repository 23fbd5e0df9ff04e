"""What stands on a version's own page in MLflow: its card, and below it a history."""

import re

_HEADING = "## Rollout"
_MOST_CHARACTERS = 5000
"""MLflow's column for descriptions; SQLite does not mind more, PostgreSQL and MySQL do."""
_HISTORY = 1200
"""Characters of the column that a card leaves to the history."""
_FIRST_OUT = ("Slices", "Safety", "Data", "Exports", "Gates")
"""Sections of a card that can be read in the version's files instead, in this order."""


def page_of(card: str) -> str:
    """The card as far as MLflow's column holds it beside a history: what does not fit is said to stand in the files."""
    sections = re.split(r"(?m)^(?=## )", card)
    for name in _FIRST_OUT:
        if sum(map(len, sections)) <= _MOST_CHARACTERS - _HISTORY:
            break
        start = f"## {name}\n"
        elsewhere = f"{start}\nIn `card.md` and `report.html`, among this version's files.\n\n"
        sections = [elsewhere if section.startswith(start) else section for section in sections]
    return "".join(sections)


def split_description(description: str | None) -> tuple[str, list[str]]:
    """A description as what was written once (a card, a refusal), and the lines of the history below it."""
    parts = re.split(rf"(?m)^{_HEADING}$", description or "", maxsplit=1)
    return parts[0].strip(), [line for line in parts[1].splitlines() if line] if len(parts) > 1 else []


def join_description(once: str, lines: list[str]) -> str:
    """The inverse; the oldest lines go first where the whole would not fit into MLflow's column."""
    room = _MOST_CHARACTERS - len(once) - len(_HEADING) - 4
    kept: list[str] = []
    for line in reversed(lines):
        room -= len(line) + 1
        if room < 0:
            break
        kept.insert(0, line)
    return f"{once}\n\n{_HEADING}\n\n" + "\n".join(kept) if kept else once
