import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.examples import FunctionRow, IntentRow, example_from_row
from pocketloop.tasks.derive import derive_catalogue


def _calls(*rows: tuple[str, str, dict]) -> list:
    return [
        example_from_row(FunctionRow(input=text, function=name, arguments=arguments), source="mine")
        for text, name, arguments in rows
    ]


def test_a_label_set_is_sorted_and_knows_which_label_declines() -> None:
    rows = [IntentRow(input="a", output="travel"), IntentRow(input="b", output="oos")]
    found = derive_catalogue(example_from_row(row, source="mine") for row in rows)
    assert (found.labels, found.refusal) == (["oos", "travel"], "oos")


def test_a_parameter_is_required_when_every_call_gives_it() -> None:
    found = derive_catalogue(
        _calls(("play x by y", "play", {"song": "x", "artist": "y"}), ("play z", "play", {"song": "z"}))
    )
    parameters = found.functions[0]["parameters"]
    assert parameters["required"] == ["song"]
    assert set(parameters["properties"]) == {"song", "artist"}


def test_a_value_that_does_not_always_stand_in_the_words_is_not_grounded() -> None:
    found = derive_catalogue(
        _calls(("lights on", "light", {"state": "on"}), ("lamp, please", "light", {"state": "off"}))
    )
    assert found.functions[0]["parameters"]["properties"]["state"] == {"type": "string", "x-grounded": False}


def test_mixed_types_are_all_allowed() -> None:
    found = derive_catalogue(_calls(("set 3", "set", {"to": 3}), ("set high", "set", {"to": "high"})))
    assert found.functions[0]["parameters"]["properties"]["to"]["type"] == ["integer", "string"]


def test_without_examples_there_is_no_catalogue() -> None:
    with pytest.raises(DataError, match="neither labels nor function calls"):
        derive_catalogue([])
