import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.home import project_root
from pocketloop.contracts.loading import load_base_config, load_config, load_recipe
from pocketloop.contracts.recipe import Catalogue, Recipe

RECIPE = """\
adapter: mine
task: chat
base: tiny
data:
  sources:
    - {kind: events, skill: assistant}
train:
  lora: {r: 8}
  stages:
    - sft: {epochs: 2}
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return path


def test_every_shipped_recipe_and_base_is_valid() -> None:
    configs = project_root() / "configs"
    for path in (configs / "adapters").glob("*.yaml"):
        recipe = load_recipe(path.stem)
        assert recipe.adapter == path.stem
        assert load_base_config(recipe.base).base == recipe.base
    for path in (configs / "bases").glob("*.yaml"):
        assert load_base_config(path.stem).base == path.stem


def test_an_unknown_key_is_named_with_file_line_and_the_nearest_known_key(recipe_file: Path) -> None:
    recipe_file.write_text(RECIPE.replace("epochs", "epoch"))
    with pytest.raises(ConfigError, match=rf"{recipe_file}:10: .*`train.stages.0.sft.epoch`.*did you mean `epochs`"):
        load_recipe(str(recipe_file))


def test_an_unknown_key_inside_a_source_is_explained_by_that_kind_of_source(recipe_file: Path) -> None:
    recipe_file.write_text(RECIPE.replace("skill:", "skil:"))
    with pytest.raises(ConfigError, match=r":6: unknown key `data.sources.0.skil`; did you mean `skill`"):
        load_recipe(str(recipe_file))


def test_a_wrong_value_names_its_line_and_what_was_given(recipe_file: Path) -> None:
    recipe_file.write_text(RECIPE.replace("r: 8", "r: 0"))
    with pytest.raises(ConfigError, match=r":8: `train.lora.r`.*greater than or equal to 1.*given: 0"):
        load_recipe(str(recipe_file))


def test_a_missing_key_and_a_key_that_stands_twice_are_errors(recipe_file: Path) -> None:
    recipe_file.write_text(RECIPE.replace("task: chat\n", ""))
    with pytest.raises(ConfigError, match="`task` is missing"):
        load_recipe(str(recipe_file))
    recipe_file.write_text(RECIPE + "base: other\n")
    with pytest.raises(ConfigError, match=":11: key 'base' stands twice"):
        load_recipe(str(recipe_file))


def test_broken_yaml_names_the_line(recipe_file: Path) -> None:
    recipe_file.write_text("adapter: [a\nb: }")
    with pytest.raises(ConfigError, match=rf"{recipe_file}:2: not valid YAML"):
        load_recipe(str(recipe_file))


def test_an_unknown_adapter_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="unknown adapter 'functoins'.*did you mean 'functions'"):
        load_recipe("functoins")


def test_overrides_reach_into_lists_and_change_the_digest(recipe_file: Path) -> None:
    plain = load_recipe(str(recipe_file))
    changed = load_recipe(str(recipe_file), ["train.stages.0.sft.epochs=5", "scrub.min_score=0.5"])
    assert changed.train.stages[0].sft.epochs == 5
    assert changed.scrub.min_score == 0.5
    assert plain.digest != changed.digest


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stages.3.sft.epochs=1", "has items 0 to 0"),
        ("train", "expected a.b.c=value"),
        ("task.x=1", "is a value, not a section"),
        ("train.lora.rank=4", "unknown key `train.lora.rank`"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(recipe_file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(str(recipe_file), [override])


def test_environment_variables_are_expanded_and_missing_ones_are_errors(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe_file.write_text(RECIPE.replace("base: tiny", "base: ${SOME_BASE:-tiny}"))
    assert load_recipe(str(recipe_file)).base == "tiny"
    monkeypatch.setenv("SOME_BASE", "qwen-3-0.6b")
    assert load_recipe(str(recipe_file)).base == "qwen-3-0.6b"
    recipe_file.write_text(RECIPE.replace("base: tiny", "base: ${NO_SUCH_VARIABLE}"))
    assert "NO_SUCH_VARIABLE" not in os.environ
    with pytest.raises(ConfigError, match=r":3: environment variable NO_SUCH_VARIABLE is not set"):
        load_recipe(str(recipe_file))


def test_a_view_keeps_what_a_stage_reads_and_forgets_the_rest() -> None:
    recipe = load_recipe("functions")
    other = load_recipe("functions", ["train.lora.r=4", "gates.0.min=0.5"])
    assert recipe.view("scrub").digest == other.view("scrub").digest
    assert recipe.view("train").digest != other.view("train").digest


def test_a_gate_says_exactly_one_thing(recipe_file: Path) -> None:
    recipe_file.write_text(RECIPE + "gates:\n  - {metric: chat_call, min: 0.5, noninferior_to: champion}\n")
    with pytest.raises(ConfigError, match="exactly one of `min`"):
        load_recipe(str(recipe_file))


def test_a_budget_names_classes_of_phones_that_exist(recipe_file: Path) -> None:
    assert load_recipe(str(recipe_file), ["export.budget.devices=[old]"]).export.budget.devices == ["old"]
    with pytest.raises(ConfigError, match=r"export\.budget\.devices: no class 'fridge'; known: high-end"):
        load_recipe(str(recipe_file), ["export.budget.devices=[old, fridge]"])


def test_a_catalogue_refuses_a_name_that_stands_twice(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text('{"labels": ["a", "b", "a"]}')
    with pytest.raises(ConfigError, match="stands twice"):
        load_config(path, Catalogue)


@given(st.text(max_size=400))
def test_whatever_a_file_holds_the_only_error_is_a_clear_one(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "recipe.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ConfigError, match="recipe.yaml"):
        load_config(path, Recipe)


@pytest.mark.parametrize(
    ("gate", "why"),
    [
        (
            "{metric: chat_rigth, min: 0.5}",
            "`gates.1.metric`: task chat has no metric 'chat_rigth'; did you mean 'chat_right'",
        ),
        ("{metric: intent_accuracy, min: 0.5}", "task chat has no metric 'intent_accuracy'; known: chat_token_f1, "),
        (
            "{metric: argument_recall, noninferior_to: champion}",
            "argument_recall is of a whole set and not of each item: it can only have a floor",
        ),
    ],
)
def test_a_gate_on_what_is_not_measured_is_named_with_its_line(recipe_file: Path, gate: str, why: str) -> None:
    text = RECIPE + f"gates:\n  - {{metric: chat_call, min: 0.5}}\n  - {gate}\n"
    recipe_file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_recipe(str(recipe_file))
    assert str(error.value).startswith(f"{recipe_file}:{RECIPE.count(chr(10)) + 3}: ")
    assert why in str(error.value)
