import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Message, Quarantined
from pocketloop.contracts.examples import Example, PreferencePair, RatedAnswer, make_example
from pocketloop.contracts.files import read_jsonl, sha256_text, write_jsonl
from pocketloop.contracts.recipe import DataConfig
from pocketloop.contracts.reports import StageCount
from pocketloop.data.split import SPLITS, split_release

PROMPTS = ["play", "Play ", "stop", "rain?", "call <PERSON_0a1b2c>", "call <PERSON_ffffff>"]
BEFORE = Quarantined(stage="label", reason="thumbs down", event_id="e")


def turns(said: str, answer: str) -> list[Message]:
    return [Message(role="user", content=said), Message(role="assistant", content=answer)]


def example(said: str, answer: str, group: str) -> Example:
    return make_example("intent", turns(said, answer), source="s", group=group, event_ids=[f"{group}-{said}"])


def pair(said: str, group: str) -> PreferencePair:
    prompt, answer = turns(said, "music")
    return PreferencePair(
        pair_id=sha256_text(said + group),
        task="intent",
        source="s",
        group=group,
        prompt=[prompt],
        chosen=answer,
        rejected=Message(role="assistant", content="weather"),
        reason="correction",
    )


def rated(said: str, group: str) -> RatedAnswer:
    rated_id = sha256_text(said + group)
    messages = turns(said, "music")
    return RatedAnswer(rated_id=rated_id, task="intent", source="s", group=group, messages=messages, desirable=False)


@dataclass
class Found:
    count: StageCount
    splits: dict[str, list[Example]]
    dropped: list[Quarantined]
    pairs: dict[str, list[PreferencePair]]
    rated: dict[str, list[RatedAnswer]]


def split(
    examples: list[Example], validation: float = 0.2, test: float = 0.3, seed: int = 7, feedback: Any = ((), ())
) -> Found:
    """Write `examples` as two parts, split them, and read everything back."""
    data = DataConfig.model_construct(validation=validation, test=test, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        selected, out = Path(folder) / "selected", Path(folder) / "out"
        middle = len(examples) // 2
        write_jsonl(selected / "examples" / "part-00000.jsonl", examples[:middle])
        write_jsonl(selected / "examples" / "part-00001.jsonl", examples[middle:])
        write_jsonl(selected / "quarantine.jsonl", [BEFORE])
        write_jsonl(selected / "pairs.jsonl", feedback[0])
        write_jsonl(selected / "rated.jsonl", feedback[1])
        count = split_release(selected, out, data)
        before, *dropped = [Quarantined.model_validate(row) for row in read_jsonl(out / "quarantine.jsonl")]
        assert before == BEFORE

        def read(kind: Any, at: str) -> dict[str, list[Any]]:
            files = {name: read_jsonl(out / "splits" / at / f"{name}.jsonl") for name in SPLITS}
            return {name: [kind.model_validate(row) for row in rows] for name, rows in files.items()}

        return Found(count, read(Example, "."), dropped, read(PreferencePair, "pairs"), read(RatedAnswer, "rated"))


GROUPS = st.integers(0, 30).map(lambda n: f"g{n}")
EXAMPLES = st.lists(
    st.builds(example, st.sampled_from(PROMPTS), st.sampled_from(["music", "weather"]), GROUPS), max_size=60
)


def split_or_none(examples: list[Example], seed: int = 7) -> Found | None:
    try:
        return split(examples, seed=seed)
    except DataError:
        return None


@pytest.mark.filterwarnings("ignore:the test split is empty")
@settings(max_examples=40)
@given(EXAMPLES, EXAMPLES, st.integers(0, 5))
def test_a_group_never_moves_when_data_is_added(before: list[Example], added: list[Example], seed: int) -> None:
    first, second = split_or_none(before, seed), split_or_none(before + added, seed)
    if first is None or second is None:
        return
    place = {e.group: name for name in SPLITS for e in first.splits[name]}
    for name in SPLITS:
        for item in second.splits[name]:
            assert place.get(item.group, name) == name


@pytest.mark.filterwarnings("ignore:the test split is empty")
@settings(max_examples=40)
@given(EXAMPLES)
def test_nothing_is_lost_nothing_stands_twice_and_no_prompt_or_group_is_on_two_sides(examples: list[Example]) -> None:
    found = split_or_none(examples)
    if found is None:
        return
    kept = [item for name in SPLITS for item in found.splits[name]]
    assert len(kept) + len(found.dropped) == len(examples)
    assert found.count.left_out == Counter(row.reason for row in found.dropped)
    assert (found.count.entered, found.count.kept) == (len(examples), len(kept))
    assert len({item.example_id for item in kept}) == len(kept)
    homes: dict[str, set[str]] = {}
    for name in SPLITS:
        for item in found.splits[name]:
            said = "call" if item.prompt[0].content.startswith("call") else item.prompt[0].content.strip().casefold()
            homes.setdefault(f"prompt {said}", set()).add(name)
            homes.setdefault(f"group {item.group}", set()).add(name)
    assert all(len(names) == 1 for names in homes.values())
    assert all(row.event_id for row in found.dropped)


def test_shares_are_about_what_was_asked_for() -> None:
    found = split([example(f"say {n}", "x", f"g{n}") for n in range(4000)], 0.05, 0.10, 7)
    assert 0.085 < len(found.splits["test"]) / 4000 < 0.115
    assert 0.04 < len(found.splits["validation"]) / 4000 < 0.06


def test_popular_prompts_are_divided_between_learning_and_testing() -> None:
    popular = [example(f"prompt {p}", "x", f"g{p}-{n}") for p in range(300) for n in range(30)]
    popular += [example(f"prompt {p}", "y", f"h{p}-{n}") for p in range(300) for n in range(30)]
    found = split(popular, 0.0, 0.2, 1)
    tested = {item.prompt[0].content for item in found.splits["test"]}
    assert 0.12 < len(tested) / 300 < 0.28
    reasons = Counter(row.reason for row in found.dropped)
    assert set(reasons) == {"prompt stands in train", "prompt stands in test", "duplicate conversation"}


def test_an_empty_test_split_warns_and_an_empty_training_split_is_an_error() -> None:
    with pytest.warns(UserWarning, match="test split is empty"):
        split([example("play", "music", "g1")], 0.0, 0.01, 1)
    with pytest.raises(DataError, match="no example is left to train on: 1 examples of 1 groups"):
        split([example("play", "music", "g1")], 0.0, 0.999, 1)


def test_what_is_dropped_does_not_quote_anybody() -> None:
    found = split([example("my secret", "x", "g1"), example("my secret", "x", "g1")], 0.0, 0.0, 1)
    assert "secret" not in json.dumps([row.detail + row.reason for row in found.dropped])


@pytest.mark.filterwarnings("ignore:the test split is empty")
@settings(max_examples=40)
@given(
    EXAMPLES,
    st.lists(st.builds(pair, st.sampled_from([*PROMPTS, "only rated"]), GROUPS), max_size=20),
    st.lists(st.builds(rated, st.sampled_from([*PROMPTS, "only rated", "said once"]), GROUPS), max_size=20),
)
def test_feedback_follows_its_group_and_never_crosses_an_examples_prompt(
    examples: list[Example], pairs: list[PreferencePair], rateds: list[RatedAnswer]
) -> None:
    try:
        alone, found = split(examples), split(examples, feedback=(pairs, rateds))
    except DataError:
        return
    assert found.splits == alone.splits and found.dropped == alone.dropped
    homes: dict[str, set[str]] = {}
    for name in SPLITS:
        prompts = [item.prompt for item in found.splits[name] + found.pairs[name]]
        prompts += [item.messages[:-1] for item in found.rated[name]]
        for prompt in prompts:
            said = "call" if prompt[0].content.startswith("call") else prompt[0].content.strip().casefold()
            homes.setdefault(f"prompt {said}", set()).add(name)
        for item in [*found.splits[name], *found.pairs[name], *found.rated[name]]:
            homes.setdefault(f"group {item.group}", set()).add(name)
    assert all(len(names) == 1 for names in homes.values())


def test_feedback_is_written_once_and_whole() -> None:
    examples = [example(f"say {n}", "x", f"g{n}") for n in range(200)]
    pairs = [pair(f"say {n}", f"g{n}") for n in range(200)]
    found = split(examples, feedback=(pairs, [rated(f"unlabelled {n}", f"h{n}") for n in range(100)]))
    for name in SPLITS:
        assert {p.group for p in found.pairs[name]} == {e.group for e in found.splits[name]}
    assert sum(map(len, found.pairs.values())) == 200
    assert sum(map(len, found.rated.values())) == 100
    assert found.pairs["train"] == [p for p in pairs if p in found.pairs["train"]]
