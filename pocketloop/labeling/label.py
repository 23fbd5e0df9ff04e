"""Label: keep the answers that the judge and the person stand behind."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pocketloop.contracts.errors import DataError, LabelQualityError
from pocketloop.contracts.events import Correction, Message, Quarantined
from pocketloop.contracts.examples import Example, Task, make_example
from pocketloop.contracts.files import read_jsonl, write_jsonl
from pocketloop.contracts.recipe import Catalogue, LabelConfig, Recipe
from pocketloop.contracts.reports import LabelReport
from pocketloop.labeling.agreement import Agreement, agreement
from pocketloop.labeling.checks import FormChecker
from pocketloop.labeling.extract import Candidate, extract
from pocketloop.labeling.verifier import Verdict, verify
from pocketloop.tasks.answers import read_calls

THUMBS_DOWN = "thumbs down"


def label(folder: Path, recipe: Recipe, catalogue: Catalogue | None, out: Path) -> LabelReport:
    """Turn the events and examples in `folder` into examples to learn from, in the folder `out`.

    Files read: `events-*.jsonl` (`ScrubbedEvent`), `examples.jsonl`, `quarantine.jsonl`. Files written:
    `examples.jsonl`, and `quarantine.jsonl` with what was left out here and before.

    A correction of sound form replaces the answer; thumbs down without one rejects it; a thumb up outweighs the
    judge's doubt, but not a wrong form. Examples of example files are people's own labels and only have to fit the
    catalogue.

    Raises:
        LabelQualityError: the judge agrees too little with enough rated answers to be trusted.
        DataError: nothing is left.
    """
    task = recipe.task
    checker = FormChecker(task, catalogue)
    outcome = _Outcome()
    for example in map(Example.model_validate, read_jsonl(folder / "examples.jsonl")):
        problem = checker.problem(example.prompt, example.answer, grounded=False)
        if problem:
            outcome.reject(problem, None, f"example {example.example_id} of {example.source}")
        else:
            outcome.examples.append(example)
    candidates, unanswered = extract(folder, task)
    for event_id in unanswered:
        outcome.reject("no answer", event_id)
    verdicts = verify(candidates, catalogue, task, list(outcome.examples))
    agreed = _agreement(candidates, verdicts)
    _demand(agreed, recipe.label)
    for candidate, verdict in zip(candidates, verdicts, strict=True):
        _decide(candidate, verdict, task, checker, outcome)
    rejected = dict(sorted(outcome.rejected.items()))
    if not outcome.examples:
        counts = ", ".join(f"{count} {reason}" for reason, count in rejected.items())
        raise DataError(f"no answer is right enough to learn from: {counts or 'there were none'}")
    out.mkdir(parents=True, exist_ok=True)
    write_jsonl(out / "examples.jsonl", outcome.examples)
    earlier = read_jsonl(folder / "quarantine.jsonl")
    write_jsonl(out / "quarantine.jsonl", [*earlier, *(row.model_dump(mode="json") for row in outcome.quarantine)])
    return LabelReport(
        judge=recipe.label.judge,
        examples=len(outcome.examples),
        corrected=outcome.corrected,
        rejected=rejected,
        rated=agreed.n,
        kappa=agreed.kappa,
        kappa_interval=agreed.interval,
    )


@dataclass
class _Outcome:
    examples: list[Example] = field(default_factory=list)
    corrected: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    quarantine: list[Quarantined] = field(default_factory=list)

    def reject(self, reason: str, event_id: str | None, detail: str = "") -> None:
        self.rejected[reason] += 1
        self.quarantine.append(Quarantined(stage="label", reason=reason, detail=detail, event_id=event_id))


def _agreement(candidates: list[Candidate], verdicts: list[Verdict]) -> Agreement:
    """The judge against the thumbs, where both said something."""
    return agreement(
        [
            (verdict.verdict == "right", candidate.person == "up")
            for candidate, verdict in zip(candidates, verdicts, strict=True)
            if candidate.person is not None and verdict.verdict != "unsure"
        ]
    )


def _demand(agreed: Agreement, config: LabelConfig) -> None:
    if agreed.n < config.min_rated or agreed.kappa is None or agreed.kappa >= config.min_kappa:
        return
    low, high = agreed.interval or (agreed.kappa, agreed.kappa)
    raise LabelQualityError(
        f"the judge `{config.judge}` agrees too little with people: kappa {agreed.kappa:.2f} (95 % interval {low:.2f} "
        f"to {high:.2f}) on {agreed.n} rated answers, label.min_kappa is {config.min_kappa}. Check that the catalogue "
        "is the one the phones use, look at rejected answers, or lower label.min_kappa knowingly"
    )


def _decide(candidate: Candidate, verdict: Verdict, task: Task, checker: FormChecker, outcome: _Outcome) -> None:
    answer = candidate.answer
    if candidate.correction is not None:
        answer = _corrected(candidate.correction, task)
        problem = checker.problem(candidate.prompt, answer)
        if problem:
            outcome.reject(f"correction: {problem}", candidate.event_id)
            return
        outcome.corrected += 1
    elif verdict.certain or (verdict.verdict == "wrong" and candidate.person != "up"):
        outcome.reject(verdict.reason, candidate.event_id)
        return
    elif candidate.person == "down":
        outcome.reject(THUMBS_DOWN, candidate.event_id)
        return
    outcome.examples.append(
        make_example(
            task,
            [*candidate.prompt, answer],
            source=candidate.source,
            group=candidate.group,
            event_ids=[candidate.event_id],
        )
    )


def _corrected(correction: Correction, task: Task) -> Message:
    """The corrected answer as a turn; calls written as text are read as calls."""
    words, calls = correction.content.strip(), correction.tool_calls
    if not calls and task != "intent":
        words, calls = read_calls(words) or (words, [])
    return Message(role="assistant", content="" if task == "function_call" else words, tool_calls=calls)
