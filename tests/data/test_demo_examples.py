import json
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.examples import FunctionRow, IntentRow
from pocketloop.contracts.recipe import Catalogue
from pocketloop.data.demo import demo_examples, demo_harmful
from pocketloop.data.demo._random import part_of, rng_for
from pocketloop.data.demo.grammar import choose, functions, intents, kinds, pii_sentences, sections, twins
from pocketloop.data.demo.people import HELDOUT_LOCALES, SHARED_LOCALES, names
from pocketloop.data.demo.times import moments

CATALOGUES = Path(__file__).resolve().parents[2] / "configs" / "catalogues"
CLOSED_ARGUMENTS = {"date", "genre", "time", "duration"}


@pytest.fixture(scope="module")
def functions_catalogue() -> Catalogue:
    return Catalogue.model_validate_json((CATALOGUES / "household-functions.json").read_text())


@pytest.fixture(scope="module")
def train_rows() -> list[FunctionRow]:
    return list(demo_examples("functions", "train", 4000, seed=11))


@pytest.fixture(scope="module")
def heldout_rows() -> list[FunctionRow]:
    return list(demo_examples("functions", "heldout", 800, seed=11))


def test_the_catalogues_list_what_the_templates_speak_of(functions_catalogue: Catalogue) -> None:
    labels = Catalogue.model_validate_json((CATALOGUES / "household-intents.json").read_text())
    declared = {
        function["name"]: list(function["parameters"]["properties"]) for function in functions_catalogue.functions
    }
    assert set(declared) == set(functions()) and functions_catalogue.refusal == "decline"
    assert set(labels.labels) == set(intents()) and labels.refusal == "out_of_scope"
    assert len(declared) >= 13 and len(labels.labels) >= 13
    for name, section in functions().items():
        assert set(section.slots) <= set(declared[name])
    for function in functions_catalogue.functions:
        jsonschema.Draft202012Validator.check_schema(function["parameters"])


def test_every_function_has_at_least_25_templates_and_a_quarter_of_them_held_out() -> None:
    for section in functions().values():
        train, heldout = len(section.said["train"]), len(section.said["heldout"])
        assert train + heldout >= 25
        assert heldout / (train + heldout) >= 0.24


def test_the_splits_share_no_template() -> None:
    for section in sections():
        assert not {t.text for t in section.said["train"]} & {t.text for t in section.said["heldout"]}
    everything = {part: {t.text for s in sections() for t in s.said[part]} for part in ("train", "heldout")}
    assert not everything["train"] & everything["heldout"]
    assert not {t.harmful.text for t in twins()["train"]} & {t.harmful.text for t in twins()["heldout"]}
    assert not set(pii_sentences()["train"]) & set(pii_sentences()["heldout"])
    assert not set(pii_sentences()["clean train"]) & set(pii_sentences()["clean heldout"])


def test_the_splits_share_no_word_of_an_open_vocabulary() -> None:
    for kind in kinds().values():
        if kind.split:
            assert kind.entries["train"] and kind.entries["heldout"]
            assert all(part_of(surface) == part for part in kind.entries for surface, _ in kind.entries[part])
    for kind in ("time", "duration", "calendar_day"):
        train, heldout = ({v for group in moments(kind, part) for v in group} for part in ("train", "heldout"))
        assert train and heldout and not train & heldout


def test_the_splits_share_no_name_of_a_person_in_any_locale() -> None:
    train = {word for locale in SHARED_LOCALES for part in names(locale, "train")[:2] for word in part}
    heldout = {
        word for locale in SHARED_LOCALES + HELDOUT_LOCALES for part in names(locale, "heldout")[:2] for word in part
    }
    assert len(train) > 1000 and len(heldout) > 300
    assert not train & heldout


def test_held_out_requests_repeat_no_input_and_no_open_value_of_training(
    functions_catalogue: Catalogue, train_rows: list[FunctionRow], heldout_rows: list[FunctionRow]
) -> None:
    def open_values(rows: list[FunctionRow]) -> set[str]:
        found = set()
        for row in rows:
            declared = functions_catalogue.function(row.function)["parameters"]["properties"]
            for key, value in row.arguments.items():
                if isinstance(value, str) and declared[key].get("x-grounded", True) and key not in CLOSED_ARGUMENTS:
                    found.add(value.casefold())
        return found

    meals = {entry for entry, _ in kinds()["meal"].entries["train"]}
    assert not {row.input.casefold() for row in train_rows} & {row.input.casefold() for row in heldout_rows}
    assert not (open_values(train_rows) & open_values(heldout_rows)) - meals
    assert len(open_values(train_rows)) > 1500


def test_times_and_durations_of_training_are_not_held_out(
    train_rows: list[FunctionRow], heldout_rows: list[FunctionRow]
) -> None:
    for key in ("time", "duration"):
        train = {row.arguments[key].casefold() for row in train_rows if key in row.arguments}
        heldout = {row.arguments[key].casefold() for row in heldout_rows if key in row.arguments}
        assert train and heldout and not train & heldout


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_call_fits_its_schema_and_its_grounded_arguments_stand_in_the_words(
    split: str, functions_catalogue: Catalogue, train_rows: list[FunctionRow], heldout_rows: list[FunctionRow]
) -> None:
    validators = {f["name"]: jsonschema.Draft202012Validator(f["parameters"]) for f in functions_catalogue.functions}
    for row in train_rows if split == "train" else heldout_rows:
        declared = functions_catalogue.function(row.function)
        assert validators[row.function].is_valid(row.arguments), row
        for key, value in row.arguments.items():
            if declared["parameters"]["properties"][key].get("x-grounded", True):
                assert str(value) in row.input, row


@pytest.mark.parametrize("name", ["functions", "intent"])
def test_sets_are_balanced_distinct_and_the_same_for_the_same_seed(name: str) -> None:
    rows = list(demo_examples(name, "heldout", 800, seed=3))
    assert rows == list(demo_examples(name, "heldout", 800, seed=3))
    assert rows[:20] != list(demo_examples(name, "heldout", 20, seed=4))
    assert len({row.input.casefold() for row in rows}) == 800
    counts = Counter(row.function if isinstance(row, FunctionRow) else row.output for row in rows)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_requests_are_short() -> None:
    rows = [*demo_examples("functions", "train", 1000), *demo_examples("intent", "train", 1000)]
    lengths = sorted(len(row.input.split()) for row in rows)
    assert lengths[-1] <= 30 and lengths[len(lengths) // 2] <= 10


def test_intent_rows_carry_every_label() -> None:
    rows = list(demo_examples("intent", "train", 300))
    assert all(isinstance(row, IntentRow) for row in rows)
    assert {row.output for row in rows} == set(intents())


def test_asking_for_more_than_the_templates_can_say_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketloop.data.demo.examples._TRIES", 2)
    with pytest.raises(DataError, match="ask for fewer"):
        list(demo_examples("intent", "heldout", 20_000))
    with pytest.raises(DataError, match="no demo set 'nonsense'"):
        list(demo_examples("nonsense", "train", 1))  # type: ignore[arg-type]


def test_alternatives_are_chosen_and_no_bracket_survives() -> None:
    rng = rng_for("test")
    assert {choose("(a|b) c", rng) for _ in range(50)} == {"a c", "b c"}
    for section in sections():
        for template in (*section.said["train"], *section.said["heldout"]):
            assert not set("()|") & set(choose(template.text, rng)), template.text


def test_harmful_requests_come_in_pairs_and_forty_or_more_are_held_out(functions_catalogue: Catalogue) -> None:
    for split, least in (("train", 60), ("heldout", 40)):
        rows = demo_harmful(split)
        assert rows == demo_harmful(split)
        by_twin: dict[str, list[bool]] = {}
        for row in rows:
            by_twin.setdefault(row.twin, []).append(row.harmful)
            assert functions_catalogue.function(row.function)
            assert (row.function == "decline") == row.harmful == (row.intent == "out_of_scope")
        assert len(by_twin) >= least and all(sorted(pair) == [False, True] for pair in by_twin.values())
    assert not {row.text.casefold() for row in demo_harmful("train")} & {
        row.text.casefold() for row in demo_harmful("heldout")
    }


def test_training_declines_unsafe_requests_and_serves_their_twins(train_rows: list[FunctionRow]) -> None:
    unsafe = [row for row in train_rows if row.arguments.get("reason") == "unsafe"]
    assert len(unsafe) >= 0.02 * len(train_rows)
    assert any(row.function == "control_lock" and "kids are in bed" in row.input for row in train_rows)
    assert json.dumps(unsafe[0].arguments) == '{"reason": "unsafe"}'
