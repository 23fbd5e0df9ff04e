from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from tinymodels import save_tiny_model

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Conversation, Message
from pocketloop.contracts.examples import Example, FunctionRow, IntentRow, example_from_row, make_example
from pocketloop.contracts.recipe import BaseConfig, Catalogue
from pocketloop.evaluation.suite import (
    confusion_counts,
    kept_score,
    read_outcomes,
    run_set,
    top_confusions,
    write_outcomes,
)
from pocketloop.models.answering import Answered
from pocketloop.models.bases import load_base
from pocketloop.models.generators import BROKEN_JSON, TIMED_OUT, TOO_LONG, Generation, TransformersGenerator, failed
from pocketloop.tasks.tasks import TaskSpec

INTENT = TaskSpec("intent", Catalogue(labels=["timer", "music", "weather"]))
TIMER = {"name": "set_timer", "description": "", "parameters": {"type": "object"}}
CALLS = TaskSpec("function_call", Catalogue(functions=[TIMER]))


class Script:
    """Answers from a list, in order, and from its beginning again when it is through."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        self.rest = cycle(answers)

    def generate(
        self, conversations: Sequence[Conversation], max_new_tokens: int, tools: list[dict[str, Any]] | None = None
    ) -> list[Generation]:
        return [Generation(next(self.rest), 3, True) for _ in conversations]


def intents(*labels: str) -> list[Example]:
    rows = [IntentRow(input=f"request {i}", output=label) for i, label in enumerate(labels)]
    return [example_from_row(row, source="test") for row in rows]


def test_every_items_outcome_is_kept_in_order_and_the_estimate_is_over_all() -> None:
    examples = intents("timer", "music", "music", "weather")
    result, outcomes = run_set(Script("timer", "music", "timer", "snow"), examples, INTENT, 8, "adapter", "heldout")
    assert [outcome.example_id for outcome in outcomes] == [example.example_id for example in examples]
    assert [outcome.scores["intent_accuracy"] for outcome in outcomes] == [1, 1, 0, 0]
    assert (result.metrics["intent_accuracy"].value, result.metrics["intent_accuracy"].n) == (0.5, 4)
    assert (result.model, result.set, result.tokens) == ("adapter", "heldout", 12)


@pytest.mark.parametrize(
    ("lost", "verdict"), [(0, "pass"), (12, "inconclusive"), (60, "fail")], ids=["equal", "somewhat", "much"]
)
def test_a_file_keeps_its_score_when_it_is_surely_not_worse_than_transformers(lost: int, verdict: str) -> None:
    labels = ["timer", "music", "weather", "music"] * 50
    said = [*(["snow"] * lost), *labels[lost:]]
    found = kept_score(Script(*said), Script(*labels), intents(*labels), INTENT, 8, margin=0.07)
    assert (found.metric, found.n, found.trained) == ("intent_accuracy", 200, 1)
    assert found.exported == pytest.approx(1 - lost / 200) and found.low < -lost / 200
    assert found.verdict == verdict


def test_confusions_count_right_answers_too_and_rank_the_mistakes() -> None:
    answers = Script("timer", "timer", "timer", "snow")
    _, outcomes = run_set(answers, intents("timer", "music", "music", "weather"), INTENT, 8, "adapter", "heldout")
    confusion = confusion_counts(outcomes)
    assert confusion == {"music": {"timer": 2}, "timer": {"timer": 1}, "weather": {"(unknown label)": 1}}
    assert top_confusions(confusion) == [("music", "timer", 2), ("weather", "(unknown label)", 1)]
    assert top_confusions(confusion, 1) == [("music", "timer", 2)]


def test_outcomes_hold_no_words_of_the_user_or_the_model(tmp_path: Path) -> None:
    row = FunctionRow(input="Set a timer for Jürgen", function="set_timer", arguments={"name": "Jürgen"})
    examples = [example_from_row(row, source="test")] * 3
    made_up = '{"function": "call_Jürgen", "arguments": {"name": "Jürgen"}}'
    disguised = '{"function": "(Jürgen", "arguments": {}}'
    _, outcomes = run_set(Script(made_up, disguised, "Hello Jürgen"), examples, CALLS, 8, "adapter", "heldout")
    path = tmp_path / "outcomes.jsonl"
    assert write_outcomes(path, outcomes) == 3
    assert "rgen" not in path.read_text(encoding="utf-8")
    assert [outcome.answer for outcome in outcomes] == ["(unknown)", "(unknown)", "(no call)"]
    assert read_outcomes(path) == outcomes


def test_an_empty_set_is_an_error() -> None:
    with pytest.raises(DataError, match="'heldout' holds no examples"):
        run_set(Script(), [], INTENT, 8, "adapter", "heldout")


def test_a_real_models_answers_are_scored(tmp_path: Path) -> None:
    config = BaseConfig(base="t", source=str(save_tiny_model(tmp_path / "base", layers=1)), architecture="gemma3")
    generator = TransformersGenerator(*load_base(config, "float32"), batch_size=2)
    result, outcomes = run_set(generator, intents("timer", "music", "weather"), INTENT, 4, "base", "heldout")
    assert len(outcomes) == 3
    assert result.tokens > 0
    assert result.metrics["intent_accuracy"].value == 0


class Broken(Script):
    """Fails, answer by answer, with the errors that stand between the answers."""

    def generate(
        self, conversations: Sequence[Conversation], max_new_tokens: int, tools: list[dict[str, Any]] | None = None
    ) -> list[Generation]:
        said = [self.answers[int(one[-1]["content"].split()[-1])] for one in conversations]
        for answer in said:
            if isinstance(answer, Exception):
                raise answer
        return [answer if isinstance(answer, Generation) else Generation(answer, 3, True) for answer in said]


def test_what_was_not_answered_counts_as_wrong_in_every_metric_and_is_counted_by_reason() -> None:
    nothing_to_call = [Message(role="user", content="hm 0"), Message(role="assistant", content="Hello!")]
    rows = [FunctionRow(input=f"request {at}", function="set_timer", arguments={}) for at in range(1, 4)]
    examples = [
        make_example("function_call", nothing_to_call, source="test"),
        *(example_from_row(row, source="test") for row in rows),
    ]
    call = '{"function": "set_timer", "arguments": {}}'
    generator = Broken(failed(TOO_LONG), call, TimeoutError(), call[:-3])
    result, outcomes = run_set(generator, examples, CALLS, 8, "adapter", "heldout")
    assert result.failures == {TOO_LONG: 1, TIMED_OUT: 1, BROKEN_JSON: 1}
    assert [outcome.failure for outcome in outcomes] == [TOO_LONG, "", TIMED_OUT, BROKEN_JSON]
    # No call was wanted of the first one, and none came: but it was not answered.
    assert [set(outcome.scores.values()) for outcome in outcomes] == [{0.0}, {1.0}, {0.0}, {0.0}]
    assert [outcome.answer for outcome in outcomes] == ["(no answer)", "set_timer", "(no answer)", "(unreadable)"]
    assert result.metrics["function_exact"].value == 0.25


def test_a_killed_run_goes_on_behind_the_last_whole_portion(tmp_path: Path) -> None:
    examples = intents(*["timer"] * 150)
    kept, seen = tmp_path / "work" / "kept.jsonl", []

    class Counting(Script):
        def generate(self, conversations: Sequence[Conversation], *_: Any) -> list[Generation]:
            if len(seen) >= 64 and not self.answers:
                raise KeyboardInterrupt
            seen.extend(one[-1]["content"] for one in conversations)
            return [Generation("timer", 2, True) for _ in conversations]

    with pytest.raises(KeyboardInterrupt):
        run_set(Counting(), [*examples, *intents(*["music"] * 50)], INTENT, 8, "adapter", "heldout", kept=kept)
    assert kept.stat().st_size and "request" not in kept.read_text(encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        run_set(Counting(), [*examples, *intents(*["music"] * 50)], INTENT, 8, "adapter", "heldout", kept=kept)
    with open(kept, "a", encoding="utf-8") as file:
        file.write('{"rows": [{"example_id": "half')
    told: list[Answered] = []
    done = len(seen)
    result, outcomes = run_set(
        Counting("go on"),
        [*examples, *intents(*["music"] * 50)],
        INTENT,
        8,
        "adapter",
        "heldout",
        kept=kept,
        on_progress=told.append,
    )
    assert len(seen) == len(outcomes) == 200 and seen[done] == f"request {done}"
    assert told[0].before == done and told[-1].done == 200
    assert result.tokens == 2 * 200 and result.metrics["intent_accuracy"].value == 150 / 200
    nobody = Counting()
    assert run_set(nobody, [*examples, *intents(*["music"] * 50)], INTENT, 8, "adapter", "heldout", kept=kept) == (
        result,
        outcomes,
    )
    fresh, _ = run_set(Counting("go on"), intents("weather"), INTENT, 8, "adapter", "other", kept=kept)
    assert fresh.metrics["intent_accuracy"].n == 1  # what was kept of another set is not mixed in
