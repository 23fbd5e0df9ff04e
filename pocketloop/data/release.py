"""Dataset releases: immutable folders under the home's `releases/`, named by adapter and content through their digest.

A release holds

- `splits/`: `train.jsonl`, `validation.jsonl`, `test.jsonl` (`Example`), and the same under `splits/pairs/`
  (`PreferencePair`) and `splits/rated/` (`RatedAnswer`);
- `lineage.jsonl`: the group and the events behind every record of the splits;
- `quarantine.jsonl`: everything that any stage left out, with its reason;
- `found/found.jsonl`: keyed fingerprints of what was scrubbed, by which a model is searched for it;
- `descriptors.parquet` and `profile.json`: what the next release is compared with;
- `scrub.html`, the scrubber's own report, and `card.html`, the page for people;
- `release.json`, the record, with the digest of every other file.

No file holds the time of its making: the same records give the same release. Records pass one at a time.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import sha256_file, sha256_text, sha256_tree, write_json, write_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import (
    CollectReport,
    DatasetRelease,
    DriftReport,
    LabelReport,
    ScrubReport,
    SelectReport,
    ValidationReport,
)

if TYPE_CHECKING:
    from pocketloop.data.profile import Profile, Tally

RECORD = "release.json"


def write_release(
    home: Home,
    recipe: Recipe,
    *,
    scrubbed: Path,
    validated: Path,
    selected: Path,
    collect: CollectReport,
    scrub: ScrubReport,
    validation: ValidationReport,
    drift: DriftReport,
    label: LabelReport,
    select: SelectReport,
) -> DatasetRelease:
    """Split the records in `selected` and freeze them with what led to them; a release that exists is given as it is.

    Raises:
        DataError: nothing is left to train on, or a stage was not given what the one before it kept.
    """
    from pocketloop.data.release_card import write_card
    from pocketloop.data.split import SPLITS, split_release

    inputs = sha256_tree(validated)
    with _workspace(home) as folder:
        split = split_release(selected, folder, recipe.data)
        digest = _digest(folder, recipe.adapter)
        target = home.releases / digest
        if not (target / RECORD).is_file():
            tally = _write_files(folder, recipe, select, validated, scrubbed)
            release = _record(
                digest=digest,
                inputs=inputs,
                adapter=recipe.adapter,
                task=recipe.task,
                splits={name: tally.count("example", name) for name in SPLITS},
                groups={name: tally.groups(name) for name in SPLITS},
                pairs={name: tally.count("pair", name) for name in SPLITS},
                rated={name: tally.count("rated", name) for name in SPLITS},
                event_ids=tally.events,
                watermark=collect.watermark,
                policies=collect.policies,
                parent=latest_release(home, recipe.adapter, inputs),
                stages=[collect.count, scrub.count, validation.count, label.count, select.count, split],
                collect=collect,
                scrub=scrub,
                validation=validation,
                drift=drift,
                label=label,
                select=select,
            )
            write_card(home, release, folder)
            write_json(folder / RECORD, release.model_copy(update={"files": _files(folder)}))
            _publish(folder, target)
    stored = read_release(target)
    write_json(_pointer(home, recipe.adapter), {"digest": digest})
    return stored


def read_release(folder: Path) -> DatasetRelease:
    """Read a release's record, and check that all its files are what the record and its name say.

    Raises:
        DataError: it is not there, incomplete, or was changed.
    """
    record = folder / RECORD
    if not record.is_file():
        raise DataError(f"{folder}: no dataset release; `pocketloop retrain ADAPTER` makes one")
    release = _parsed(record)
    if release is None:
        raise DataError(f"{record}: not a release of this version; `pocketloop curate ADAPTER` makes a new one")
    if _digest(folder, release.adapter) != release.digest:
        raise DataError(f"{folder}: the splits do not match their digest: they were changed; delete the folder")
    for name, digest in release.files.items():
        path = folder / name
        if not path.is_file() or sha256_file(path) != digest:
            raise DataError(f"{path}: does not match the digest in {RECORD}: it was changed; delete the folder")
    return release


def read_profile(folder: Path) -> "Profile":
    """The profile of the release in `folder`.

    Raises:
        DataError: it is not there, or not of this version.
    """
    from pocketloop.data.profile import Profile

    path = folder / "profile.json"
    try:
        return Profile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise DataError(f"{path}: missing, or not a profile of this version") from None


def latest_release(home: Home, adapter: str, inputs: str | None = None) -> str | None:
    """Digest of the adapter's newest release, or `None`; one of another version of the program counts as none.

    With `inputs`, the digest of a validated folder, a newest release made from just these inputs is passed over for
    its parent: so a run with nothing new is compared with what the run before it was compared with.
    """
    pointer = _pointer(home, adapter)
    if not pointer.is_file():
        return None
    digest = str(json.loads(pointer.read_bytes())["digest"])
    record = home.releases / digest / RECORD
    if not record.is_file() or _parsed(record) is None:
        return None
    if inputs is None:
        return digest
    release = read_release(record.parent)
    return release.parent if release.inputs == inputs else release.digest


def parents(home: Home, release: DatasetRelease) -> list[str]:
    """Digests of the releases before this one, the newest first; ends with one whose folder is gone."""
    chain: list[str] = []
    digest = release.parent
    while digest is not None and digest not in chain:
        chain.append(digest)
        record = home.releases / digest / RECORD
        digest = json.loads(record.read_bytes()).get("parent") if record.is_file() else None
    return chain


def _parsed(record: Path) -> DatasetRelease | None:
    """What the record says; `None` when it is one of another version of the program."""
    try:
        return DatasetRelease.model_validate_json(record.read_bytes())
    except ValidationError:
        return None


def _record(**fields: Any) -> DatasetRelease:
    try:
        return DatasetRelease(**fields)
    except ValidationError as error:
        raise DataError(
            f"the stages' counts do not add up: {error.errors()[0]['msg']}; run the pipeline anew"
        ) from None


def _pointer(home: Home, adapter: str) -> Path:
    return home.releases / f"latest-{adapter}.json"


def _digest(folder: Path, adapter: str) -> str:
    """Two adapters may learn from the same splits: each has a release of its own."""
    return sha256_text(f"{adapter} {sha256_tree(folder / 'splits')}")


def _write_files(folder: Path, recipe: Recipe, select: SelectReport, validated: Path, scrubbed: Path) -> "Tally":
    """Write everything beside the splits and the quarantine but the card and the record; returns what was counted."""
    from pocketloop.data.profile import Tally, members

    tally = Tally(frozenset(select.by_label))

    def lines() -> Iterator[dict[str, Any]]:
        for member in members(folder / "splits", recipe.task):
            tally.add(member)
            yield member.line()

    write_jsonl(folder / "lineage.jsonl", lines())
    write_json(folder / "profile.json", tally.profile(validated))
    shutil.copyfile(validated / "descriptors.parquet", folder / "descriptors.parquet")
    (folder / "found").mkdir()
    shutil.copyfile(scrubbed / "found.jsonl", folder / "found" / "found.jsonl")
    if (scrubbed / "scrub.html").is_file():
        shutil.copyfile(scrubbed / "scrub.html", folder / "scrub.html")
    return tally


def _files(folder: Path) -> dict[str, str]:
    """Digest of every file beside the splits, which the release's own digest covers."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: sha256_file(path) for name, path in names.items() if not name.startswith("splits/")}


@contextmanager
def _workspace(home: Home) -> Iterator[Path]:
    """A folder to build a release in; what killed runs have left behind is removed."""
    import psutil

    home.releases.mkdir(parents=True, exist_ok=True)
    for left in home.releases.glob(".new-*"):
        owner = left.name.split("-")[1]
        if not (owner.isdigit() and psutil.pid_exists(int(owner))):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".new-{os.getpid()}-", dir=home.releases) as workspace:
        folder = Path(workspace) / "release"
        folder.mkdir()
        yield folder


def _publish(folder: Path, target: Path) -> None:
    """Give the release its name; another run may have been faster with the same. What has no record is no release."""
    try:
        folder.rename(target)
    except OSError:
        if (target / RECORD).is_file():
            return
        shutil.rmtree(target)
        folder.rename(target)
