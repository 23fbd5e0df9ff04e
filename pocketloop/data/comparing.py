"""Finding releases by name, and what changed from one to another: counts, answers, records, numbers; never a text."""

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import read_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.reports import DatasetRelease
from pocketloop.data.profile import Profile
from pocketloop.data.release import RECORD, latest_release, parents, read_profile, read_release

LISTED = 20
"""Identifiers of added and removed records that a comparison lists."""

_DIGEST = re.compile(r"[0-9a-f]{4,64}")
Pair = tuple[int, int]


class Turnover(BaseModel):
    """What is only in the later release, only in the earlier one, and in both; the first ids of the former two."""

    model_config = ConfigDict(extra="forbid")

    added: int
    removed: int
    kept: int
    first_added: list[str] = Field(default_factory=list)
    first_removed: list[str] = Field(default_factory=list)


class ColumnChange(BaseModel):
    """A descriptor's mean in both, and how far it drifted where the later release was measured against the earlier."""

    model_config = ConfigDict(extra="forbid")

    before: float
    after: float
    psi: float | None


class ReleaseDiff(BaseModel):
    """From one release (`before`) to another (`after`). Tuples are (before, after)."""

    model_config = ConfigDict(extra="forbid")

    before: str
    after: str
    adapters: tuple[str, str]
    splits: dict[str, Pair]
    pairs: Pair
    rated: Pair
    stages: dict[str, Pair]
    """Records that each stage kept."""
    left_out: dict[str, Pair]
    """By `stage: reason`."""
    labels: dict[str, Pair]
    """Examples by answer."""
    found: dict[str, Pair]
    """Values replaced by type."""
    examples: Turnover
    moved: int
    """Examples that are in both, but in another split."""
    groups: Turnover
    columns: dict[str, ColumnChange]
    policies_added: list[str]
    policies_removed: list[str]
    versions: dict[str, tuple[str, str]]
    """Scrubber, judge and rubric."""


def find_release(home: Home, name: str) -> Path:
    """Folder of the release that `name` means: an adapter's newest, `ADAPTER~1` for the one before it, or a digest.

    Raises:
        DataError: there is none of that name, or a digest's beginning fits several.
    """
    adapter, tilde, back = name.partition("~")
    if tilde and not (back.isascii() and back.isdigit()):
        raise DataError(f"{name}: after ~ stands how many releases to go back, such as {adapter}~1")
    digest = latest_release(home, adapter)
    if digest is None and _DIGEST.fullmatch(adapter):
        found = sorted(path.parent.name for path in home.releases.glob(f"{adapter}*/{RECORD}"))
        if len(found) > 1:
            raise DataError(f"{adapter}: {len(found)} releases begin so ({', '.join(d[:16] for d in found)})")
        digest = found[0] if found else None
    if digest is None:
        known = sorted(path.stem.removeprefix("latest-") for path in home.releases.glob("latest-*.json"))
        held = f"there are releases of: {', '.join(known)}" if known else "`pocketloop curate ADAPTER` makes one"
        raise DataError(f"{name}: no dataset release; {held}")
    if not int(back or 0):
        return home.releases / digest
    chain = parents(home, read_release(home.releases / digest))
    if int(back) > len(chain):
        raise DataError(f"{name}: release {digest[:16]} has {len(chain)} before it")
    return home.releases / chain[int(back) - 1]


def compare(before: Path, after: Path) -> ReleaseDiff:
    """What changed between the releases in two folders.

    Raises:
        DataError: one of them is missing or was changed.
    """
    return compare_with(read_release(before), read_profile(before), before, read_release(after), after)


def compare_with(
    old: DatasetRelease, old_profile: Profile, before: Path, new: DatasetRelease, after: Path
) -> ReleaseDiff:
    """As `compare`, for records at hand: that of a release that is being written is not in its folder yet."""
    new_profile = read_profile(after)
    examples, groups, moved = _turnover(before, after)
    old_labels, new_labels = (
        {name: sum(counts.values()) for name, counts in profile.labels.items()}
        for profile in (old_profile, new_profile)
    )
    old_left, new_left = (
        {f"{stage.stage}: {reason}": n for stage in release.stages for reason, n in stage.left_out.items()}
        for release in (old, new)
    )
    return ReleaseDiff(
        before=old.digest,
        after=new.digest,
        adapters=(old.adapter, new.adapter),
        splits=_both(old.splits, new.splits),
        pairs=(sum(old.pairs.values()), sum(new.pairs.values())),
        rated=(sum(old.rated.values()), sum(new.rated.values())),
        stages=_both(*({stage.stage: stage.kept for stage in release.stages} for release in (old, new))),
        left_out=_both(old_left, new_left),
        labels=_both(old_labels, new_labels),
        found=_both(old.scrub.found, new.scrub.found),
        examples=examples,
        moved=moved,
        groups=groups,
        columns={
            name: ColumnChange(
                before=spread.mean,
                after=new_profile.numbers[name].mean,
                psi=new.drift.columns.get(name) if new.drift.reference == old.digest else None,
            )
            for name, spread in old_profile.numbers.items()
            if name in new_profile.numbers
        },
        policies_added=sorted(set(new.policies) - set(old.policies)),
        policies_removed=sorted(set(old.policies) - set(new.policies)),
        versions=_versions(old, new),
    )


def _versions(old: DatasetRelease, new: DatasetRelease) -> dict[str, tuple[str, str]]:
    versions = {
        "scrubber": (old.scrub.scrubber[:16], new.scrub.scrubber[:16]),
        "judge": (old.label.judge, new.label.judge),
    }
    if old.label.use or new.label.use:
        versions["rubric"] = (
            old.label.use.rubric if old.label.use else "none",
            new.label.use.rubric if new.label.use else "none",
        )
    return versions


def _both(before: dict[str, int], after: dict[str, int]) -> dict[str, Pair]:
    """Counts by name in both, in the later one's order, then what only the earlier one has."""
    return {name: (before.get(name, 0), after.get(name, 0)) for name in dict.fromkeys([*after, *before])}


def _turnover(before: Path, after: Path) -> tuple[Turnover, Turnover, int]:
    """Examples and groups of two releases by their lineage, and how many examples changed the split.

    The ids of the earlier release are held in memory, with those of the groups of both.
    """
    places: dict[str, str] = {}
    old_groups: set[str] = set()
    for row in read_jsonl(before / "lineage.jsonl"):
        if "example_id" in row:
            places[row["example_id"]] = row["split"]
            old_groups.add(row["group"])
    added, moved, kept = 0, 0, 0
    first_added: list[str] = []
    new_groups: set[str] = set()
    for row in read_jsonl(after / "lineage.jsonl"):
        if "example_id" not in row:
            continue
        new_groups.add(row["group"])
        place = places.pop(row["example_id"], None)
        if place is None:
            added += 1
            if len(first_added) < LISTED:
                first_added.append(row["example_id"])
        else:
            kept += 1
            moved += place != row["split"]
    examples = Turnover(
        added=added,
        removed=len(places),
        kept=kept,
        first_added=first_added,
        first_removed=[example for example, _ in zip(places, range(LISTED), strict=False)],
    )
    gone, come = old_groups - new_groups, new_groups - old_groups
    groups = Turnover(
        added=len(come),
        removed=len(gone),
        kept=len(old_groups & new_groups),
        first_added=sorted(come)[:LISTED],
        first_removed=sorted(gone)[:LISTED],
    )
    return examples, groups, moved
