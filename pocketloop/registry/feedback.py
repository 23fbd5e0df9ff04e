"""Answers that people should look at, as traces in MLflow with a review queue; and what they said of them.

A trace holds the scrubbed conversation and the answer. Where judge and user differ, the judge's word stands beside
it; an answer that was drawn at random shows none, so that people's word on it is their own. The queue asks the
rubric's question; a person's answer is a `HUMAN` assessment named after the rubric, in the queue or beside the trace.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from pocketloop.contracts.errors import RegistryError
from pocketloop.contracts.home import Home
from pocketloop.contracts.labels import ForPeople, HumanVerdict, Rubric, Says
from pocketloop.registry.mlflow_store import client, ensure_experiment
from pocketloop.tasks.answers import write_answer

EVENT, RUBRIC, WHY = "pocketloop.event_id", "pocketloop.rubric", "pocketloop.why"
"""Tags of a trace."""

_WORDS: dict[str, Says] = {
    **dict.fromkeys(("right", "true", "yes", "pass", "up", "correct"), "right"),
    **dict.fromkeys(("wrong", "false", "no", "fail", "down", "incorrect"), "wrong"),
}
_MOST, _AT_ONCE = 100_000, 50
_INSTRUCTION_CHARACTERS = 1000


def experiment_of(adapter: str) -> str:
    """The experiment that holds an adapter's answers."""
    return f"{adapter}.answers"


def queue_of(adapter: str, rubric: str) -> str:
    """The review queue in it."""
    return f"{adapter}: {rubric}"


def ask_people(home: Home, adapter: str, rows: list[ForPeople], rubric: Rubric) -> int:
    """Put answers before people; returns how many are new. One that is there already is not added again.

    Raises:
        RegistryError: MLflow did not keep all of them.
    """
    experiment = ensure_experiment(home, experiment_of(adapter))
    with _store(home):
        import mlflow

        known = {trace.info.tags.get(EVENT): trace.info.trace_id for trace in _traces(experiment, rubric.rubric)}
        new = {row.event_id: _log(mlflow, experiment, row) for row in rows if row.event_id not in known}
        kept = {trace.info.tags.get(EVENT) for trace in _traces(experiment, rubric.rubric)}
        lost = len(set(new) - kept)
        if lost:
            raise RegistryError(f"MLflow lost {lost} of {len(new)} traces of {experiment_of(adapter)}; run it again")
        wanted = [trace for event, trace in {**known, **new}.items() if event in {row.event_id for row in rows}]
        if wanted:
            _enqueue(experiment, queue_of(adapter, rubric.rubric), rubric, wanted)
    return len(new)


def read_people(home: Home, adapter: str) -> list[HumanVerdict]:
    """What people said in MLflow of an adapter's answers: the newest word of each person on each."""
    verdicts = []
    with _store(home):
        for trace in _traces(_experiment(home, adapter)):
            for rater, word in _words(trace).items():
                verdicts.append(
                    HumanVerdict.model_validate(
                        {
                            "event_id": trace.info.tags[EVENT],
                            "rubric": trace.info.tags[RUBRIC],
                            "verdict": word,
                            "rater": rater,
                            "source": "mlflow",
                            "drawn": trace.info.tags[WHY],
                        }
                    )
                )
    return verdicts


def waiting(home: Home, adapter: str) -> list[dict[str, Any]]:
    """The answers before people: {trace, event, rubric, why, judge, reason, thumb, people}, no text in it."""
    rows = []
    with _store(home):
        for trace in _traces(_experiment(home, adapter)):
            given = {one.name: one for one in trace.info.assessments if one.source.source_type != "HUMAN"}
            judged = given.get(trace.info.tags[RUBRIC])
            thumb = next((one.feedback.value for one in trace.info.assessments if one.name == "thumb"), "")
            rows.append(
                {
                    "trace": trace.info.trace_id,
                    "event": trace.info.tags[EVENT],
                    "rubric": trace.info.tags[RUBRIC],
                    "why": trace.info.tags[WHY],
                    "judge": judged.feedback.value if judged else "",
                    "reason": judged.rationale or "" if judged else "",
                    "thumb": thumb,
                    "people": sorted(_words(trace).values()),
                }
            )
    return sorted(rows, key=lambda row: (row["why"], row["event"]))


def forget_answers(home: Home, event_ids: Collection[str]) -> int:
    """Delete the traces of these events from all adapters' experiments; returns how many that were."""
    api, gone = client(home), 0
    for experiment in api.search_experiments(filter_string="name LIKE '%.answers'"):
        with _store(home):
            found = [t.info.trace_id for t in _traces(experiment.experiment_id) if t.info.tags[EVENT] in event_ids]
        for at in range(0, len(found), _AT_ONCE):
            some = found[at : at + _AT_ONCE]
            gone += api.delete_traces(experiment_id=experiment.experiment_id, trace_ids=some)
    return gone


@contextmanager
def _store(home: Home) -> Iterator[None]:
    """Point MLflow's tracing at the home's store for a while, one write after the other.

    Tracing knows only the process's own address, and by default writes in the background: on SQLite that loses rows.
    """
    client(home)
    import mlflow

    wanted = {"MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false"}
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", *wanted)}
    os.environ.update(wanted)
    mlflow.set_tracking_uri(home.mlflow_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # back to what the environment says
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _experiment(home: Home, adapter: str) -> str | None:
    found = client(home).get_experiment_by_name(experiment_of(adapter))
    return str(found.experiment_id) if found else None


def _traces(experiment: str | None, rubric: str | None = None) -> list[Any]:
    """The traces that this module wrote, without their spans."""
    import mlflow

    if experiment is None:
        return []
    found = mlflow.search_traces(locations=[experiment], max_results=_MOST, return_type="list", include_spans=False)
    return [
        trace
        for trace in found
        if EVENT in trace.info.tags and trace.info.tags[RUBRIC] == (rubric or trace.info.tags[RUBRIC])
    ]


def _log(mlflow: Any, experiment: str, row: ForPeople) -> str:
    from mlflow.entities import AssessmentSource

    *prompt, answer = [{"role": turn.role, "content": write_answer(turn)} for turn in row.messages]
    span = mlflow.start_span_no_context(
        name="answer",
        inputs={"messages": prompt},
        tags={EVENT: row.event_id, RUBRIC: row.rubric, WHY: row.why},
        experiment_id=experiment,
    )
    span.set_outputs(answer)
    span.end()
    if row.why == "disagreement":
        kind = "LLM_JUDGE" if row.judge == "llm" else "CODE"
        source = AssessmentSource(source_type=kind, source_id=row.judge)
        mlflow.log_feedback(
            trace_id=span.trace_id, name=row.rubric, value=row.says, rationale=row.reason, source=source
        )
        source = AssessmentSource(source_type="HUMAN", source_id="the answer's user")
        mlflow.log_feedback(trace_id=span.trace_id, name="thumb", value=row.person, source=source)
    return str(span.trace_id)


def _enqueue(experiment: str, name: str, rubric: Rubric, traces: list[str]) -> None:
    """Add traces to the review queue that asks the rubric's question; queue and question are made on first use."""
    from mlflow.genai import label_schemas, review_queues

    instruction = " ".join([rubric.question, *(f"{one.name}: {one.text}" for one in rubric.criteria)])
    instruction = instruction[:_INSTRUCTION_CHARACTERS]
    asked = {one.name: one for one in label_schemas.list_label_schemas(experiment)}
    question = asked.get(rubric.rubric)
    if question is None:
        question = label_schemas.create_label_schema(
            rubric.rubric,
            type="feedback",
            input=label_schemas.InputCategorical(options=["right", "wrong"]),
            instruction=instruction,
            enable_comment=True,
            experiment_id=experiment,
        )
    elif question.instruction != instruction:
        label_schemas.update_label_schema(question.schema_id, instruction=instruction)
    queues = {one.name: one for one in review_queues.list_review_queues(experiment_id=experiment)}
    queue = queues.get(name) or review_queues.create_review_queue(
        name, queue_type="custom", schema_ids=[question.schema_id], experiment_id=experiment
    )
    for at in range(0, len(traces), _AT_ONCE):
        review_queues.add_items_to_review_queue(queue.queue_id, item_ids=traces[at : at + _AT_ONCE])


def _words(trace: Any) -> dict[str, Says]:
    """What each person said in answer to the rubric's question; what cannot be understood is passed over."""
    said: dict[str, tuple[int, Says]] = {}
    for one in trace.info.assessments:
        if one.name != trace.info.tags[RUBRIC] or one.source.source_type != "HUMAN" or one.valid is False:
            continue
        word = _WORDS.get(str(one.feedback.value).strip().casefold()) if one.feedback else None
        moment = one.last_update_time_ms or 0
        if word and moment >= said.get(one.source.source_id, (0, word))[0]:
            said[one.source.source_id] = (moment, word)
    return {rater: word for rater, (_, word) in said.items()}
