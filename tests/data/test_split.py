import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, make_example
from pocketloop.data.split import SPLITS, Split, split_by_group


def example(said: str, answer: str, group: str) -> Example:
    turns = [Message(role="user", content=said), Message(role="assistant", content=answer)]
    return make_example("intent", turns, source="s", group=group, event_ids=[f"{group}-{said}"])


EXAMPLES = st.lists(
    st.builds(
        example,
        st.sampled_from(["play", "Play ", "stop", "rain?", "call <PERSON_0a1b2c>", "call <PERSON_ffffff>"]),
        st.sampled_from(["music", "weather"]),
        st.integers(0, 30).map(lambda n: f"g{n}"),
    ),
    max_size=60,
)


def split(examples: list[Example], seed: int = 7) -> Split | None:
    try:
        return split_by_group(examples, 0.2, 0.3, seed)
    except DataError:
        return None


@pytest.mark.filterwarnings("ignore:the test split is empty")
@given(EXAMPLES, EXAMPLES, st.integers(0, 5))
def test_a_group_never_moves_when_data_is_added(before: list[Example], added: list[Example], seed: int) -> None:
    first, second = split(before, seed), split(before + added, seed)
    if first is None or second is None:
        return
    place = {e.group: name for name in SPLITS for e in first.of(name)}
    for name in SPLITS:
        for item in second.of(name):
            assert place.get(item.group, name) == name


@pytest.mark.filterwarnings("ignore:the test split is empty")
@given(EXAMPLES)
def test_nothing_is_lost_nothing_stands_twice_and_no_prompt_or_group_is_on_two_sides(examples: list[Example]) -> None:
    found = split(examples)
    if found is None:
        return
    kept = [item for name in SPLITS for item in found.of(name)]
    assert len(kept) + len(found.dropped) == len(examples)
    assert len({item.example_id for item in kept}) == len(kept)
    homes: dict[str, set[str]] = {}
    for name in SPLITS:
        for item in found.of(name):
            said = "call" if item.prompt[0].content.startswith("call") else item.prompt[0].content.strip().casefold()
            homes.setdefault(f"prompt {said}", set()).add(name)
            homes.setdefault(f"group {item.group}", set()).add(name)
    assert all(len(names) == 1 for names in homes.values())
    assert all(row.event_id for row in found.dropped)


def test_shares_are_about_what_was_asked_for() -> None:
    found = split_by_group([example(f"say {n}", "x", f"g{n}") for n in range(4000)], 0.05, 0.10, 7)
    assert 0.085 < len(found.test) / 4000 < 0.115
    assert 0.04 < len(found.validation) / 4000 < 0.06


def test_popular_prompts_are_divided_between_learning_and_testing() -> None:
    popular = [example(f"prompt {p}", "x", f"g{p}-{n}") for p in range(300) for n in range(30)]
    popular += [example(f"prompt {p}", "y", f"h{p}-{n}") for p in range(300) for n in range(30)]
    found = split_by_group(popular, 0.0, 0.2, 1)
    tested = {item.prompt[0].content for item in found.test}
    assert 0.12 < len(tested) / 300 < 0.28
    reasons = Counter(row.reason for row in found.dropped)
    assert set(reasons) == {"prompt stands in train", "prompt stands in test", "duplicate conversation"}


def test_an_empty_test_split_warns_and_an_empty_training_split_is_an_error() -> None:
    with pytest.warns(UserWarning, match="test split is empty"):
        split_by_group([example("play", "music", "g1")], 0.0, 0.01, 1)
    with pytest.raises(DataError, match="no example is left to train on: 1 examples of 1 groups"):
        split_by_group([example("play", "music", "g1")], 0.0, 0.999, 1)


def test_what_is_dropped_does_not_quote_anybody() -> None:
    found = split_by_group([example("my secret", "x", "g1"), example("my secret", "x", "g1")], 0.0, 0.0, 1)
    assert "secret" not in json.dumps([row.detail + row.reason for row in found.dropped])
