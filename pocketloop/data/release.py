"""Dataset releases: immutable folders under the home's `releases/`, named by adapter and content through their digest.

A release holds `splits/` (`train.jsonl`, `validation.jsonl`, `test.jsonl`: `Example`), `lineage.jsonl` (which events
each example came from), `quarantine.jsonl` (everything that any stage left out, with its reason), `descriptors.csv`
(what the next release's drift is measured against) and `release.json`. No file holds the time of its making: the same
examples give the same release.
"""

import json
import shutil
import tempfile
from pathlib import Path

from pydantic import ValidationError

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import read_jsonl, sha256_text, sha256_tree, write_json, write_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import (
    CollectReport,
    DatasetRelease,
    DriftReport,
    LabelReport,
    ScrubReport,
    ValidationReport,
)
from pocketloop.data.split import SPLITS, Split, split_by_group


def write_release(
    home: Home,
    recipe: Recipe,
    labelled: Path,
    validated: Path,
    *,
    collect: CollectReport,
    scrub: ScrubReport,
    validation: ValidationReport,
    drift: DriftReport,
    label: LabelReport,
) -> DatasetRelease:
    """Split the examples in `labelled` and freeze them with what led to them; a release that exists is given as it is.

    Raises:
        DataError: nothing is left to train on.
    """
    data = recipe.data
    examples = [Example.model_validate(row) for row in read_jsonl(labelled / "examples.jsonl")]
    split = split_by_group(examples, data.validation, data.test, data.seed)
    inputs = sha256_tree(validated)
    home.releases.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=home.releases) as workspace:
        folder = Path(workspace) / "release"
        _write_files(folder, split, labelled, validated)
        digest = _digest(folder, recipe.adapter)
        target = home.releases / digest
        if not target.is_dir():
            release = DatasetRelease(
                digest=digest,
                inputs=inputs,
                adapter=recipe.adapter,
                task=recipe.task,
                splits={name: len(split.of(name)) for name in SPLITS},
                groups={name: len({example.group for example in split.of(name)}) for name in SPLITS},
                event_ids=len({event_id for name in SPLITS for e in split.of(name) for event_id in e.event_ids}),
                watermark=collect.watermark,
                policies=collect.policies,
                parent=latest_release(home, recipe.adapter, inputs),
                collect=collect,
                scrub=scrub,
                validation=validation,
                drift=drift,
                label=label,
            )
            write_json(folder / "release.json", release)
            folder.rename(target)
    stored = read_release(target)
    write_json(_pointer(home, recipe.adapter), {"digest": digest})
    return stored


def read_release(folder: Path) -> DatasetRelease:
    """Read a release's record, and check that its splits are what its name says.

    Raises:
        DataError: it is not there, incomplete, or was changed.
    """
    record = folder / "release.json"
    if not record.is_file():
        raise DataError(f"{folder}: no dataset release; `pocketloop retrain ADAPTER` makes one")
    try:
        release = DatasetRelease.model_validate_json(record.read_bytes())
    except ValidationError as error:
        raise DataError(f"{record}: not a release of this version ({error.error_count()} wrong keys)") from None
    if _digest(folder, release.adapter) != release.digest:
        raise DataError(f"{folder}: the splits do not match their digest: they were changed; delete the folder")
    return release


def latest_release(home: Home, adapter: str, inputs: str | None = None) -> str | None:
    """Digest of the adapter's newest release, or `None`.

    With `inputs`, the digest of a validated folder, a newest release made from just these inputs is passed over for
    its parent: so a run with nothing new is compared with what the run before it was compared with.
    """
    pointer = _pointer(home, adapter)
    if not pointer.is_file():
        return None
    digest = str(json.loads(pointer.read_bytes())["digest"])
    folder = home.releases / digest
    if not (folder / "release.json").is_file():
        return None
    if inputs is None:
        return digest
    release = read_release(folder)
    return release.parent if release.inputs == inputs else release.digest


def _pointer(home: Home, adapter: str) -> Path:
    return home.releases / f"latest-{adapter}.json"


def _digest(folder: Path, adapter: str) -> str:
    """Two adapters may learn from the same splits: each has a release of its own."""
    return sha256_text(f"{adapter} {sha256_tree(folder / 'splits')}")


def _write_files(folder: Path, split: Split, labelled: Path, validated: Path) -> None:
    """Write everything but the record."""
    for name in SPLITS:
        write_jsonl(folder / "splits" / f"{name}.jsonl", split.of(name))
    write_jsonl(
        folder / "lineage.jsonl",
        (
            {"example_id": example.example_id, "split": name, "source": example.source, "event_ids": example.event_ids}
            for name in SPLITS
            for example in split.of(name)
        ),
    )
    earlier = read_jsonl(labelled / "quarantine.jsonl")
    write_jsonl(folder / "quarantine.jsonl", [*earlier, *(row.model_dump(mode="json") for row in split.dropped)])
    shutil.copyfile(validated / "descriptors.csv", folder / "descriptors.csv")
