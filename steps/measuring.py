"""What evaluation measures beside scores: a router's confidence, a judge's preference, perplexity."""

from collections.abc import Callable
from pathlib import Path

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.labels import Duel
from pocketloop.contracts.loading import load_rubric
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import EvaluationReport, SetResult
from pocketloop.models.answering import answer_all
from pocketloop.models.generators import Generator
from pocketloop.models.llama_cpp import LlamaCppGenerator
from pocketloop.tasks.tasks import TaskSpec
from steps.examples import split_examples

PERPLEXITY_EXAMPLES = 256
"""Examples of a chat whose right answers' perplexity is measured."""


def add_router(
    report: EvaluationReport,
    runtime: LlamaCppGenerator,
    dataset: Folder,
    heldout: list[Example],
    task: TaskSpec,
    recipe: Recipe,
    outcomes: Path,
) -> None:
    """For intents: measure how sure the router is, and write its confidences into the outcomes of the first set."""
    from pocketloop.evaluation.calibration import calibrate
    from pocketloop.evaluation.routing import router_report
    from pocketloop.evaluation.suite import read_outcomes, with_confidence, write_outcomes

    if recipe.task != "intent":
        return
    known = split_examples(dataset, "validation", recipe)
    fitted = calibrate(runtime, known, heldout, task, recipe.evaluation.max_new_tokens)
    if fitted is None:
        return
    path, wanted = outcomes / f"{report.results[0].set}.adapter.jsonl", recipe.evaluation.router
    sure = with_confidence(read_outcomes(path), fitted.confidences)
    write_outcomes(path, sure)
    refusal = task.catalogue.refusal if task.catalogue else None
    report.calibration = fitted.calibration
    report.router = router_report(sure, refusal, wanted.min_accuracy, wanted.confidence)


def add_perplexity(result: SetResult, generator: Generator, examples: list[Example], task: TaskSpec) -> None:
    """For chats as a phone runs them: how surprising the right answers are."""
    from pocketloop.evaluation.perplexity import perplexity

    if task.name == "chat" and isinstance(generator, LlamaCppGenerator):
        result.perplexity = perplexity(generator, examples[:PERPLEXITY_EXAMPLES], task, generator.context)


def add_preference(
    report: EvaluationReport,
    running: Callable[[str], Generator],
    examples: list[Example],
    task: TaskSpec,
    recipe: Recipe,
    outcomes: Path,
) -> None:
    """Where the recipe names a judge: let it compare the candidate with the champion.

    Each verdict goes into the candidate's outcomes of the first set, and the win rates, which follow from them, into
    its metrics.
    """
    from pocketloop.evaluation.measures import measures
    from pocketloop.evaluation.preference import judged_counts, preference_report
    from pocketloop.evaluation.suite import read_outcomes, write_outcomes
    from pocketloop.labeling.answer_cache import AnswerCache
    from pocketloop.labeling.duels import judge_duels

    wanted, asked = recipe.evaluation.judge, examples[: recipe.evaluation.judged]
    if wanted is None:
        return
    conversations = [task.conversation(example.prompt, example.role) for example in asked]
    said = {}
    for model in ("adapter", "champion"):
        answers = answer_all(running(model), conversations, recipe.evaluation.max_new_tokens, task.tools)
        said[model] = [Message(role="assistant", content=answer.text) for answer in answers]
    duels = [Duel(one.prompt, *both) for one, *both in zip(asked, said["adapter"], said["champion"], strict=True)]
    with AnswerCache(Home().cache / "judge") as known:
        verdicts, use = judge_duels(duels, wanted, load_rubric(wanted.rubric), task.catalogue, known)
    report.preference = found = preference_report(duels, verdicts, use)
    if found is None:
        print(f"  the judge compared nothing: {use.why or 'it gave no usable verdict'}", flush=True)
        return
    main = report.results[0]
    path = outcomes / f"{main.set}.adapter.jsonl"
    rows = read_outcomes(path)
    for row, counts in zip(rows, judged_counts(duels, verdicts), strict=False):
        row.counts.update(counts)  # the first ones were judged
    write_outcomes(path, rows)
    main.metrics = measures(rows, task.name)
