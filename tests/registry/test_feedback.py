import os
import sqlite3
from pathlib import Path
from typing import Any, Literal

import pytest

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.home import Home
from pocketloop.contracts.labels import ForPeople
from pocketloop.contracts.loading import load_rubric
from pocketloop.registry import feedback

pytestmark = pytest.mark.slow


def row(n: int, why: Literal["disagreement", "random"] = "disagreement") -> ForPeople:
    call = ToolCall(name="set_timer", arguments={"minutes": n})
    return ForPeople(
        event_id=f"e{n}",
        group="g",
        task="function_call",
        rubric="right_answer",
        judge="llm",
        messages=[
            Message(role="user", content=f"#{n}# minutes, <PERSON_3fa2b1>"),
            Message(role="assistant", tool_calls=[call]),
        ],
        says="wrong",
        reason="the judge finds it wrong: arguments",
        person="right" if why == "disagreement" else None,
        why=why,
    )


def answer(trace: str, value: Any, rater: str, name: str = "right_answer") -> None:
    """What MLflow's pages write when a person answers."""
    import mlflow
    from mlflow.entities import AssessmentSource

    source = AssessmentSource(source_type="HUMAN", source_id=rater)
    mlflow.log_feedback(trace_id=trace, name=name, value=value, source=source)


def test_disagreements_wait_in_mlflow_and_what_people_say_of_them_comes_back(home: Path) -> None:
    rubric = load_rubric("right_answer")
    rows = [*map(row, range(1, 13)), row(41, "random"), row(42, "random")]
    assert feedback.ask_people(Home(), "functions", rows, rubric) == 14
    shown = {one["event"]: one for one in feedback.waiting(Home(), "functions")}
    assert len(shown) == 14, "MLflow loses rows on SQLite when many write at once"
    assert (shown["e1"]["judge"], shown["e1"]["thumb"]) == ("wrong", "right")
    assert shown["e1"]["reason"].endswith("arguments")
    assert (shown["e41"]["judge"], shown["e41"]["thumb"]) == ("", ""), "who is to speak for himself is told nothing"
    assert feedback.read_people(Home(), "functions") == []
    with feedback._store(Home()):
        answer(shown["e1"]["trace"], "wrong", "anna")
        answer(shown["e1"]["trace"], "right", "anna")  # she changed her mind
        answer(shown["e1"]["trace"], False, "ben")
        answer(shown["e41"]["trace"], "Yes", "ben")
        answer(shown["e42"]["trace"], "hard to say", "ben")
        answer(shown["e42"]["trace"], "right", "ben", name="politeness")
    said = {(one.event_id, one.rater): one for one in feedback.read_people(Home(), "functions")}
    assert {key: one.verdict for key, one in said.items()} == {
        ("e1", "anna"): "right",
        ("e1", "ben"): "wrong",
        ("e41", "ben"): "right",
    }
    assert {key: one.drawn for key, one in said.items()}["e41", "ben"] == "random"
    assert all(one.source == "mlflow" and one.rubric == "right_answer" for one in said.values())
    assert feedback.waiting(Home(), "functions")[0]["people"] in (["right", "wrong"], [])

    assert feedback.ask_people(Home(), "functions", [*rows[:2], row(43)], rubric) == 1, "the rest is there already"
    assert len(feedback.waiting(Home(), "functions")) == 15

    assert feedback.forget_answers(Home(), {"e1", "e2", "e999"}) == 2
    assert {one.event_id for one in feedback.read_people(Home(), "functions")} == {"e41"}
    with sqlite3.connect(home / "mlflow.db") as store:
        tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        stored = [str(found) for name in tables for found in store.execute(f"SELECT * FROM {name}")]
    assert any("#3#" in found for found in stored) and not any("#1#" in found or "#2#" in found for found in stored)


def test_people_find_the_rubrics_question_in_a_review_queue(home: Path) -> None:
    rubric = load_rubric("right_answer")
    feedback.ask_people(Home(), "functions", [row(1), row(2)], rubric)
    feedback.ask_people(Home(), "functions", [row(2), row(3)], rubric.model_copy(update={"question": "Is it right?"}))
    with feedback._store(Home()):
        from mlflow.genai import label_schemas, review_queues

        experiment = feedback._experiment(Home(), "functions")
        (queue,) = review_queues.list_review_queues(experiment_id=experiment)
        question = label_schemas.get_label_schema("right_answer", experiment_id=experiment)
        items = review_queues.list_review_queue_items(queue.queue_id)
    assert queue.name == "functions: right_answer" and queue.schema_ids == [question.schema_id]
    assert question.name == "right_answer" and list(question.input.options) == ["right", "wrong"]
    assert question.instruction.startswith("Is it right?")
    assert len(items) == 3


def test_the_process_is_left_with_the_address_that_it_had(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert feedback.read_people(Home(), "functions") == []
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert feedback.waiting(Home(), "functions") == []
