"""Which champion a training run may go on from. Made up: what the registry would hand out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tinymodels import save_tiny_model
from training_samples import asked, pair, recipe, release

from pocketloop.contracts.errors import DataError, ModelError
from pocketloop.contracts.files import Folder, write_json, write_jsonl
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import BaseConfig, Recipe
from pocketloop.export.base import weights_digest
from pocketloop.registry import mlflow_store
from steps.champion import Champion, ChampionRef, old_test_split, open_champion

REF = ChampionRef(version="3", digest="d")


@pytest.fixture
def base(tmp_path: Path) -> BaseConfig:
    folder = save_tiny_model(tmp_path / "weights", layers=1)
    return BaseConfig(base="mine-base", source=str(folder), architecture="gemma3")


@pytest.fixture
def registered(tmp_path: Path, base: BaseConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle of version 3, trained on release "old"; its files may be changed by a test."""
    bundle = tmp_path / "bundle"
    manifest = {
        "base": "mine-base", "architecture": "gemma3", "source": "x", "digest": "q", "quantization": "Q4_K_M",
        "weights_digest": weights_digest(Path(base.source)), "parameters": 1, "files": {}, "sizes": {},
        "fallback_tensors": 0, "bits_per_weight": 5.0, "probes": 0,
    }  # fmt: skip
    write_json(bundle / "base.json", manifest)
    write_json(bundle / "recipe.json", recipe(lora={"r": 8}))
    (bundle / "adapter").mkdir()

    @contextmanager
    def fetched(home: Home, found: Any) -> Iterator[Path]:
        yield bundle

    monkeypatch.setattr(mlflow_store, "candidate", lambda *_: SimpleNamespace(dataset_digest="old"))
    monkeypatch.setattr(mlflow_store, "fetch_bundle", fetched)
    return bundle


@pytest.fixture
def old(tmp_path: Path) -> Home:
    """A home whose release "old" holds 20 training examples, a pair, and 6 test examples."""
    home = Home(tmp_path / "home")
    release(home.releases / "old", asked(20), [pair()])
    write_jsonl(home.releases / "old/splits/test.jsonl", asked(6, start=100))
    return home


def opened(home: Home, wanted: Recipe, base: BaseConfig) -> Champion:
    with open_champion(home, wanted, base, REF) as champion:
        return champion


def test_it_comes_with_its_adapter_and_all_that_it_has_seen(registered: Path, old: Home, base: BaseConfig) -> None:
    champion = opened(old, recipe(lora={"r": 8}), base)
    assert champion.adapter == registered / "adapter"
    assert champion.seen == {"p1", *(example.example_id for example in asked(20))}


def test_one_of_another_base_is_refused_by_both_names(registered: Path, old: Home, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "other", layers=1, seed=9)
    other = BaseConfig(base="other-base", source=str(folder), architecture="gemma3")
    with pytest.raises(ModelError, match=r"mine@3 belongs to base mine-base .*, the recipe names base other-base"):
        opened(old, recipe(lora={"r": 8}), other)


def test_one_of_another_shape_is_refused_with_what_differs(registered: Path, old: Home, base: BaseConfig) -> None:
    wanted = recipe(lora={"r": 8, "targets": ["q_proj", "v_proj"], "method": "dora"})
    with pytest.raises(
        ModelError, match=r"method: lora there, dora here; targets: all-linear there, q_proj, v_proj here"
    ):
        opened(old, wanted, base)


def test_a_recipe_of_another_version_of_the_program_says_no_shape(
    registered: Path, old: Home, base: BaseConfig
) -> None:
    (registered / "recipe.json").write_text('{"adapter": "mine", "train": {"epochs": 3}}')
    with pytest.raises(ModelError, match="recipe of another version of this program"):
        opened(old, recipe(lora={"r": 8}), base)


def test_a_release_that_is_gone_is_an_error_that_names_it(registered: Path, tmp_path: Path, base: BaseConfig) -> None:
    with pytest.raises(DataError, match=r"mine@3 was trained on release old, which is gone"):
        opened(Home(tmp_path / "empty"), recipe(lora={"r": 8}), base)


def test_it_is_asked_what_it_was_tested_on_and_nobody_trains_on_now(
    registered: Path, old: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pocketloop.data import forget

    now = release(tmp_path / "now", asked(22) + asked(1, start=100))
    write_jsonl(now / "test.jsonl", asked(3, start=103))
    now = Folder.of(now.path)
    ids = [example.example_id for example in asked(6, start=100)]
    assert [example.example_id for example in old_test_split(old, recipe(), REF, now)] == ids[1:]
    monkeypatch.setattr(forget, "withdrawn", lambda home, digest: "2026-11-01T00:00:00Z")
    assert [example.example_id for example in old_test_split(old, recipe(), REF, now)] == ids[3:]
