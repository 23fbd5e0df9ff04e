"""The card of a release that a person opens: one HTML file that needs nothing beside it, and quotes nobody."""

from contextlib import suppress
from pathlib import Path

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import atomic_file
from pocketloop.contracts.home import Home
from pocketloop.contracts.pages import render_template
from pocketloop.contracts.reports import DatasetRelease
from pocketloop.data.comparing import ReleaseDiff, compare_with
from pocketloop.data.profile import Profile
from pocketloop.data.release import parents, read_profile, read_release
from pocketloop.data.release_figures import (
    COLOURS,
    agreement_figure,
    audit_figure,
    days_figure,
    devices_figure,
    found_figure,
    funnel_figure,
    lengths_figure,
    mix_figure,
)

CARD = "card.html"
_MOST_CHANGES = 30


def write_card(home: Home, release: DatasetRelease, folder: Path) -> None:
    """Write `card.html` into the folder of a release that is being made.

    A parent that is gone, was changed, or is of another version of the program is not compared with.
    """
    before: Profile | None = None
    diff: ReleaseDiff | None = None
    if release.parent:
        parent = home.releases / release.parent
        with suppress(DataError):
            before = read_profile(parent)
            diff = compare_with(read_release(parent), before, parent, release, folder)
    scrub_page = (folder / "scrub.html").is_file()
    html = render_card(release, read_profile(folder), before, diff, parents(home, release), scrub_page)
    with atomic_file(folder / CARD) as temporary:
        temporary.write_text(html, encoding="utf-8")


def render_card(
    release: DatasetRelease,
    profile: Profile,
    before: Profile | None = None,
    diff: ReleaseDiff | None = None,
    chain: list[str] | None = None,
    scrub_page: bool = False,
) -> str:
    """The card as HTML text.

    `before` and `diff` tell of the parent, `chain` lists all releases before this one, `scrub_page` says whether the
    scrubber's own report lies beside the card.
    """
    from markupsafe import Markup

    # Every figure is drawn here from numbers and known names; matplotlib escapes the names.
    figures = {name: Markup(figure) for name, figure in _figures(release, profile, before, diff).items()}  # noqa: S704
    return render_template(
        Path(__file__).parent / "templates" / "card.html",
        release=release,
        profile=profile,
        diff=diff,
        chain=chain or [],
        scrub_page=scrub_page,
        figures=figures,
        colours=COLOURS,
        label_changes=_label_changes(diff) if diff else [],
        reasons=_reasons(release, diff),
    )


def _figures(
    release: DatasetRelease, profile: Profile, before: Profile | None, diff: ReleaseDiff | None
) -> dict[str, str]:
    old_labels = {label: pair[0] for label, pair in diff.labels.items() if pair[0]} if diff else None
    figures = {
        "funnel": funnel_figure(release.stages),
        "mix": mix_figure(profile.labels, old_labels),
    }
    if any(profile.per_device.values()):
        figures["devices"] = devices_figure(profile.per_device)
    if profile.days:
        figures["days"] = days_figure(profile.days)
    for name, counts in profile.lengths.items():
        if any(counts[1:]):  # a call without words beside it has no length
            figures[f"{name} lengths"] = lengths_figure(counts, before.lengths.get(name) if before else None)
    if any(release.scrub.found.values()):
        figures["found"] = found_figure(release.scrub.found)
    if release.scrub.audit and release.scrub.audit.types:
        figures["audit"] = audit_figure(release.scrub.audit)
    if any(agreed.kappa is not None for agreed in release.label.agreement):
        figures["agreement"] = agreement_figure(release.label.agreement)
    return figures


def _label_changes(diff: ReleaseDiff) -> list[tuple[str, int, int, float, float]]:
    """Answers whose share changed by a tenth of a point or more: counts and shares before and after, most first."""
    totals = [max(1, sum(pair[side] for pair in diff.labels.values())) for side in (0, 1)]
    rows = [(label, a, b, a / totals[0], b / totals[1]) for label, (a, b) in diff.labels.items()]
    rows = [row for row in rows if abs(row[4] - row[3]) >= 0.001]
    return sorted(rows, key=lambda row: (-abs(row[4] - row[3]), row[0]))[:_MOST_CHANGES]


def _reasons(release: DatasetRelease, diff: ReleaseDiff | None) -> list[tuple[str, str, int, int | None]]:
    """Why records were left out: stage, reason, how many here, and how many in the parent; most first by stage."""
    rows: list[tuple[str, str, int, int | None]] = []
    for stage in release.stages:
        for reason, count in sorted(stage.left_out.items(), key=lambda item: (-item[1], item[0])):
            before = diff.left_out[f"{stage.stage}: {reason}"][0] if diff else None
            rows.append((stage.stage, reason, count, before))
    return rows
