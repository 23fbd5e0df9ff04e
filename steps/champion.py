"""The champion: the version that the fleet runs now, which a candidate is compared with and may go on from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError
from zenml import step

from pocketloop.contracts.errors import DataError, ModelError
from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import Folder, read_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import BaseConfig, Recipe
from pocketloop.contracts.reports import BaseManifest
from pocketloop.contracts.training import LoraConfig
from steps.examples import split_examples


class ChampionRef(BaseModel):
    """Which version the fleet's stable channel serves now; empty when nothing was ever promoted."""

    version: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Champion:
    """A version to go on from: its adapter (peft), and the ids of everything in the split that it was trained on."""

    version: str
    adapter: Path
    seen: frozenset[str]


@step(enable_cache=False)
def champion(recipe: Recipe) -> Annotated[ChampionRef, "champion"]:
    """Look the champion up in the registry."""
    from pocketloop.registry.mlflow_store import champion as find

    found = find(Home(), recipe.adapter)
    return ChampionRef(version=found.version, digest=found.digest) if found else ChampionRef()


@contextmanager
def open_champion(home: Home, recipe: Recipe, base: BaseConfig, ref: ChampionRef) -> Iterator[Champion]:
    """Fetch the champion to train on, while the context lasts.

    Raises:
        DataError: the release that it was trained on is gone, so nobody knows what it has seen.
        ModelError: it belongs to another base, or its adapter has another shape than the recipe asks for.
        ReviewRefused: its files are gone or were changed.
    """
    from pocketloop.registry.mlflow_store import candidate, fetch_bundle

    found = candidate(home, recipe.adapter, ref.version)
    name = f"{recipe.adapter}@{ref.version}"
    with fetch_bundle(home, found) as bundle:
        _check_base(name, BaseManifest.model_validate_json((bundle / "base.json").read_bytes()), base)
        _check_shape(name, bundle / "recipe.json", recipe.train.lora)
        yield Champion(ref.version, bundle / "adapter", seen_by(home, name, found.dataset_digest, "train"))


def seen_by(home: Home, name: str, release: str, split: str) -> frozenset[str]:
    """The ids of all examples, pairs and rated answers in a split of the release that version `name` was trained on.

    Raises:
        DataError: the release is gone.
    """
    folder = _splits(home, name, release)
    files = [folder / f"{split}.jsonl", folder / "pairs" / f"{split}.jsonl", folder / "rated" / f"{split}.jsonl"]
    rows = (row for file in files if file.is_file() for row in read_jsonl(file))
    return frozenset(str(row[key]) for row in rows for key in ("example_id", "pair_id", "rated_id") if key in row)


def old_test_split(home: Home, recipe: Recipe, ref: ChampionRef, dataset: Folder) -> list[Example]:
    """The test split of the release that the champion was trained on, less what `dataset` now trains on.

    Where somebody whose records are in that release was forgotten, only what `dataset` still tests on is left.

    Raises:
        DataError: the release is gone.
    """
    from pocketloop.data.forget import withdrawn
    from pocketloop.registry.mlflow_store import candidate

    release = candidate(home, recipe.adapter, ref.version).dataset_digest
    splits = _splits(home, f"{recipe.adapter}@{ref.version}", release)
    examples = split_examples(Folder(path=splits, digest=""), "test", recipe)
    trained = _ids(dataset / "train.jsonl")
    kept = _ids(dataset / "test.jsonl") if withdrawn(home, release) else None
    return [e for e in examples if e.example_id not in trained and (kept is None or e.example_id in kept)]


def _ids(path: Path) -> frozenset[str]:
    return frozenset(str(row["example_id"]) for row in read_jsonl(path))


def _splits(home: Home, name: str, release: str) -> Path:
    folder = home.releases / release / "splits"
    if not (folder / "train.jsonl").is_file():
        raise DataError(
            f"{name} was trained on release {release[:12]}, which is gone from {home.releases.name}/: nobody knows "
            "what it has seen; train with --set train.start=base"
        )
    return folder


def _check_base(name: str, theirs: BaseManifest, base: BaseConfig) -> None:
    from pocketloop.export.base import weights_digest
    from pocketloop.models.bases import base_folder

    ours = weights_digest(base_folder(base))
    if theirs.weights_digest != ours:
        raise ModelError(
            f"{name} belongs to base {theirs.base} (weights {theirs.weights_digest[:12]}), the recipe names base "
            f"{base.base} (weights {ours[:12]}): an adapter is bound to its base; train with --set train.start=base"
        )


def _check_shape(name: str, recipe: Path, ours: LoraConfig) -> None:
    try:
        theirs = Recipe.model_validate_json(recipe.read_bytes()).train.lora
    except ValidationError:
        raise ModelError(
            f"{name} was trained by a recipe of another version of this program, which says nothing of its adapter's "
            "shape; train with --set train.start=base"
        ) from None
    before, now = theirs.model_dump(), ours.model_dump()
    changed = [f"{key}: {_shown(before[key])} there, {_shown(now[key])} here" for key in now if before[key] != now[key]]
    if changed:
        raise ModelError(
            f"{name}'s adapter has another shape than train.lora asks for ({'; '.join(changed)}): its weights cannot "
            "be taken over; ask for its shape, or train with --set train.start=base"
        )


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
