"""Running a model on a held-out set: each item's outcome for pairing, and estimates over all of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.examples import Example
from pocketloop.contracts.exports import KeptScore
from pocketloop.contracts.files import read_jsonl, write_jsonl
from pocketloop.contracts.reports import SetResult
from pocketloop.evaluation.kept import KeptPortions, Portion
from pocketloop.evaluation.measures import measures
from pocketloop.evaluation.statistics import noninferior
from pocketloop.models.answering import OnAnswered, answer_all
from pocketloop.models.generators import BROKEN_JSON, Generation, Generator
from pocketloop.tasks.answers import write_answer
from pocketloop.tasks.slices import slices_of
from pocketloop.tasks.tasks import TaskSpec

UNKNOWN = "(unknown)"
"""Stands for a label or function that the model made up: the words may be the user's own."""
UNREADABLE = "(unreadable)"
"""Stands for an answer that begins as a call and is no valid one."""
NO_ANSWER = "(no answer)"
"""Stands for an answer that was not given: `failure` says why."""
_KINDS = {"(no call)", UNREADABLE, "(unknown label)", NO_ANSWER}


class Outcome(BaseModel):
    """One item of one model: its scores in [0, 1], and the classes of the answer and of the reference. Never text.

    A metric that does not apply to the item is absent from `scores`. `counts` are what ratios over many items are made
    of (arguments said, wanted and right; tokens and their log loss). `slices` maps a dimension to the item's value in
    it (`{"locale": "de-DE", "length": "short"}`); all models have the same ones for the same item. `confidence` is a
    router's, at its temperature. The turns of one dialogue share `dialogue`, and are no independent items.
    `failure` says why there is no answer that could be scored; every score is then 0.
    """

    model_config = ConfigDict(extra="forbid")

    example_id: str
    scores: dict[str, float]
    answer: str
    reference: str
    counts: dict[str, float] = Field(default_factory=dict)
    slices: dict[str, str] = Field(default_factory=dict)
    confidence: float | None = None
    dialogue: str = ""
    failure: str = ""


Outcomes = Mapping[str, Sequence[Outcome]]
"""Each model's outcomes on one evaluation set, by the model's name (`adapter`, `base`, `champion`)."""


def run_set(
    generator: Generator,
    examples: Sequence[Example],
    task: TaskSpec,
    max_new_tokens: int,
    model_name: str,
    set_name: str,
    *,
    kept: Path | None = None,
    on_progress: OnAnswered | None = None,
) -> tuple[SetResult, list[Outcome]]:
    """Answer every example's prompt and score the answers; outcomes come in the examples' order.

    `seconds` is the wall time of generation and `tokens` what was generated. An item without an answer (a prompt that
    is too long, a timeout, a call that is no JSON) scores 0 in every metric and is counted in `failures`.

    Args:
        generator: what answers.
        examples: the set.
        task: how examples are shown, and answers scored.
        max_new_tokens: the longest answer.
        model_name: of the result.
        set_name: of the result.
        kept: file in which outcomes are kept while it runs: a run that was killed goes on from there.
        on_progress: told about every ten seconds how far it is.

    Raises:
        DataError: the set is empty.
    """
    if not examples:
        raise DataError(f"evaluation set {set_name!r} holds no examples; nothing can be measured on it")
    portions = KeptPortions(kept, [example.example_id for example in examples])
    outcomes = [Outcome.model_validate(row) for row in portions.rows]
    rest = examples[len(outcomes) :]
    known = _known_classes(task) | {task.label_of(write_answer(example.answer)) for example in examples} | _KINDS

    def keep(answers: Sequence[Generation], seconds: float) -> None:
        asked = examples[len(outcomes) : len(outcomes) + len(answers)]
        found = [_outcome(answer, example, task, known) for answer, example in zip(answers, asked, strict=True)]
        outcomes.extend(found)
        rows = [outcome.model_dump(mode="json") for outcome in found]
        portions.add(Portion(rows=rows, tokens=sum(answer.tokens for answer in answers), seconds=seconds))

    answer_all(
        generator,
        [task.conversation(example.prompt, example.role) for example in rest],
        max_new_tokens,
        task.tools,
        on_progress=on_progress,
        on_portion=keep,
        before=len(outcomes),
    )
    result = SetResult(
        model=model_name,
        set=set_name,
        metrics=measures(outcomes, task.name),
        seconds=sum(portion.seconds for portion in portions.portions),
        tokens=sum(portion.tokens for portion in portions.portions),
        failures=dict(Counter(outcome.failure for outcome in outcomes if outcome.failure).most_common()),
    )
    return result, outcomes


def _outcome(answer: Generation, example: Example, task: TaskSpec, known: set[str]) -> Outcome:
    found = NO_ANSWER if answer.failure else task.label_of(answer.text)
    reference = task.label_of(write_answer(example.answer))
    failure = answer.failure or (BROKEN_JSON if found == UNREADABLE else "")
    scores, counts = task.measure("" if failure else answer.text, example)
    if failure:  # saying nothing may be right, not answering never is
        scores = dict.fromkeys(scores, 0.0)
        counts = {name: 0.0 if name.endswith("_right") else count for name, count in counts.items()}
    return Outcome(
        example_id=example.example_id,
        scores=scores,
        answer=found if found in known else UNKNOWN,
        reference=reference,
        counts=counts,
        slices=slices_of(example, reference),
        dialogue=example.dialogue,
        failure=failure,
    )


def kept_score(
    exported: Generator,
    trained: Generator,
    examples: Sequence[Example],
    task: TaskSpec,
    max_new_tokens: int,
    margin: float,
) -> KeptScore:
    """The task's main metric of an exported file beside the same adapter in transformers, on the same examples."""
    metric = task.metrics[0]
    ours, theirs = (
        [outcome.scores[metric] for outcome in run_set(generator, examples, task, max_new_tokens, name, "")[1]]
        for name, generator in (("exported", exported), ("transformers", trained))
    )
    compared = noninferior(ours, theirs, margin)
    return KeptScore(
        metric=metric,
        n=compared.n,
        exported=fmean(ours),
        trained=fmean(theirs),
        low=compared.low,
        verdict=compared.verdict,
    )


def with_confidence(outcomes: Iterable[Outcome], confidences: Mapping[str, float]) -> list[Outcome]:
    """The outcomes with their confidence, by example id; `None` where there is none."""
    return [outcome.model_copy(update={"confidence": confidences.get(outcome.example_id)}) for outcome in outcomes]


def confusion_counts(outcomes: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    """How often each class (outer key) was answered with each class (inner key), right answers included."""
    table: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        row = table.setdefault(outcome.reference, {})
        row[outcome.answer] = row.get(outcome.answer, 0) + 1
    return {label: table[label] for label in sorted(table)}


def top_confusions(confusion: dict[str, dict[str, int]], most: int = 10) -> list[tuple[str, str, int]]:
    """The most frequent mistakes as (reference, answer, count), most frequent first."""
    mistakes = Counter(
        {(label, answer): n for label, row in confusion.items() for answer, n in row.items() if answer != label}
    )
    ranked = sorted(mistakes.items(), key=lambda item: (-item[1], item[0]))
    return [(label, answer, n) for (label, answer), n in ranked[:most]]


def write_outcomes(path: Path, outcomes: Iterable[Outcome]) -> int:
    """Write one outcome a line; returns how many."""
    return write_jsonl(path, outcomes)


def read_outcomes(path: Path) -> list[Outcome]:
    """Read what `write_outcomes` wrote."""
    return [Outcome.model_validate(row) for row in read_jsonl(path)]


def _known_classes(task: TaskSpec) -> set[str]:
    if task.catalogue is None:
        return set()
    return {*task.catalogue.labels, *(str(function["name"]) for function in task.catalogue.functions)}
