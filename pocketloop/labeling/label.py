"""Label: keep the answers that the judge and the person stand behind; pair and rate what people have spoken on.

Two passes over the events, none of which is ever held: the first lets the judge look at all answers, the second
decides on one after the other.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Correction, Message
from pocketloop.contracts.examples import Example, make_example
from pocketloop.contracts.files import atomic_dir, read_jsonl
from pocketloop.contracts.labels import HumanVerdict, Says
from pocketloop.contracts.loading import load_rubric
from pocketloop.contracts.names import Task
from pocketloop.contracts.recipe import Catalogue, LabelConfig, Recipe
from pocketloop.contracts.reports import LabelReport
from pocketloop.labeling.answer_cache import AnswerCache
from pocketloop.labeling.endpoint import Endpoint
from pocketloop.labeling.extract import Candidate, EventFiles, Found, roles_of
from pocketloop.labeling.judges import Judge, Verdict
from pocketloop.labeling.jury import Jury
from pocketloop.labeling.llm_judge import LlmJudge
from pocketloop.labeling.pairs import Thumbs, correction_pair, rated_answer, says_something
from pocketloop.labeling.people import Drawn, People, demand
from pocketloop.labeling.questions import Asker
from pocketloop.labeling.samples import rank_samples
from pocketloop.labeling.users import Users
from pocketloop.labeling.verifier import Verifier
from pocketloop.labeling.writing import LabelledFiles
from pocketloop.tasks.answers import read_calls
from pocketloop.tasks.forms import FormChecker

THUMBS_DOWN, RATED_WRONG = "thumbs down", "people found it wrong"
_CHUNK = 2000


def label(
    folder: Path,
    recipe: Recipe,
    catalogue: Catalogue | None,
    out: Path,
    *,
    people: Iterable[HumanVerdict] = (),
    cache: Path | None = None,
    samples: Path | None = None,
) -> LabelReport:
    """Turn the events and examples in `folder` into examples, pairs and rated answers to learn from, in `out`.

    Files read: `events-*.jsonl` (`ScrubbedEvent`), `examples.jsonl`, `quarantine.jsonl`. Files written:
    `examples/part-*.jsonl`, `pairs.jsonl`, `rated.jsonl`, `for_people.jsonl` (`ForPeople`: what people should look
    at), and `quarantine.jsonl` with what was left out here and before.

    A correction of sound form replaces the answer; a person's "wrong" without one rejects it; a person's "right"
    outweighs the judge's doubt, but not a wrong form. Examples of example files are people's own labels and only have
    to fit the catalogue, and not to have been found wrong.

    Args:
        people: what raters said, beside the users' own thumbs.
        cache: folder in which a language model's verdicts are kept; without one they are forgotten.
        samples: file of `Sampled` answers of the current adapter, for the judge to rank.

    Raises:
        ConfigError: the judge's rubric or key is missing, or its endpoint refuses to be asked.
        LabelQualityError: the judge agrees too little with enough rated answers to be trusted.
        DataError: nothing is left.
    """
    with AnswerCache(cache) as answers:
        labelling = _Labelling(folder, recipe, catalogue, list(people), answers)
        labelling.look()
        with atomic_dir(out) as into:
            with LabelledFiles(into) as files:
                report = labelling.decide(files, samples)
            _demand_something(report)
    return report


def _demand_something(report: LabelReport) -> None:
    if not report.count.kept:
        counts = ", ".join(f"{count} {reason}" for reason, count in report.count.left_out.items())
        why = f" ({report.use.why})" if report.use and report.use.why else ""
        raise DataError(f"no answer is right enough to learn from: {counts or 'there were none'}{why}")


class _Labelling:
    def __init__(
        self, folder: Path, recipe: Recipe, catalogue: Catalogue | None, said: list[HumanVerdict], kept: AnswerCache
    ) -> None:
        self.folder = folder
        self.task: Task = recipe.task
        self.config: LabelConfig = recipe.label
        self.events = EventFiles(folder, recipe.task, roles_of(recipe.data))
        self.checker = FormChecker(recipe.task, catalogue)
        self.jury = _jury(recipe, catalogue, kept)
        self.judge: Judge = Verifier(recipe.task)
        if self.jury and recipe.label.judge == "llm":
            self.judge = LlmJudge(self.jury, self.events, recipe.label.min_rated)
        self.people = People(said, self.judge.rubric)
        self.for_people = Drawn(recipe.task, self.judge)
        self.thumbs = Thumbs()
        self.users = Users()
        self.problems: dict[str, str] = {}  # by event id; answers of sound form are not in it

    def look(self) -> None:
        """First pass: the form of each answer; the judge sees those that are sound."""
        for place, event_id, candidate in self.events:
            if candidate is None:
                continue
            self.users.see(candidate)
            problem = self.checker.problem(candidate.prompt, candidate.answer)
            if problem:
                self.problems[event_id] = problem
            else:
                self.judge.see(candidate, place, rated=self.people.of(candidate) is not None)
            said = self.rating(candidate)
            if said and self.config.pairs.thumbs and candidate.correction is None:
                self.thumbs.see(candidate, place, said)
        for example in self.examples():
            if self.example_problem(example) is None:
                self.judge.refer(example)
        self.thumbs.settle()
        self.judge.settle()

    def decide(self, files: LabelledFiles, samples: Path | None) -> LabelReport:
        """Second pass: keep, correct or leave out; then see whether the judge may be trusted with that."""
        for row in read_jsonl(self.folder / "quarantine.jsonl"):
            files.carry(row)
        for example in self.examples():
            problem = self.example_problem(example)
            if problem:
                files.leave_out(problem, None, f"example {example.example_id} of {example.source}")
            else:
                files.keep(example)
        for found, verdict in self.judged():
            self.decide_one(found, verdict, files)
        agreed = self.people.agreed()
        demand(agreed, self.judge.name, self.config)
        for pair in self.thumbs.pairs(self.events, self.task):
            files.pair(pair)
        if self.jury and samples:
            for pair in rank_samples(samples, self.jury, self.checker):
                files.pair(pair)
        for shown in self.for_people.rows():
            files.ask(shown)
        return LabelReport(
            count=files.count(),
            judge=self.judge.name,
            corrected=files.corrected,
            agreement=agreed,
            use=self.jury.use() if self.jury else None,
            pairs=dict(sorted(files.pairs.items())),
            rated=dict(sorted(files.rated.items())),
            disagreements=self.people.disagreements,
        )

    def examples(self) -> Iterator[Example]:
        return map(Example.model_validate, read_jsonl(self.folder / "examples.jsonl"))

    def example_problem(self, example: Example) -> str | None:
        if self.people.on(example.example_id) == "wrong":
            return RATED_WRONG
        return self.checker.problem(example.prompt, example.answer, grounded=False)

    def judged(self) -> Iterator[tuple[Found, Verdict | None]]:
        """Every event with the judge's word on it; `None` where there is nothing to judge."""
        stream = iter(self.events)
        while chunk := list(islice(stream, _CHUNK)):
            sound = [found.candidate for found in chunk if found.candidate and found.event_id not in self.problems]
            verdicts = dict(zip((one.event_id for one in sound), self.judge.verdicts(sound), strict=True))
            for found in chunk:
                yield found, verdicts.get(found.event_id)

    def decide_one(self, found: Found, verdict: Verdict | None, files: LabelledFiles) -> None:
        candidate, event_id = found.candidate, found.event_id
        if candidate is None:
            files.leave_out("no answer", event_id)
            return
        problem = self.problems.get(event_id)
        verdict = verdict or Verdict("wrong", problem or "")
        said = self.people.of(candidate)
        differ = self.people.compare(candidate, verdict)
        if self.people.on(event_id) is None:
            self.for_people.see(candidate, verdict, said, differ)
        corrected = self.corrected(candidate, files)
        rating = self.rating(candidate)
        if rating and corrected is None and not self.thumbs.has(candidate):
            files.rate(rated_answer(candidate, rating, self.task))
        if candidate.correction is not None:
            if corrected is not None:
                files.corrected += 1
                files.keep(self.example(candidate, corrected))
        elif problem:
            files.leave_out(problem, event_id)
        elif said == "right":
            files.keep(self.example(candidate, candidate.answer))
        elif verdict.reason:
            files.leave_out(verdict.reason, event_id)
        elif said == "wrong":
            files.leave_out(THUMBS_DOWN if candidate.person == "down" else RATED_WRONG, event_id)
        else:
            files.keep(self.example(candidate, candidate.answer))

    def rating(self, candidate: Candidate) -> Says | None:
        """What people said of an answer, if it is one to learn from: not to like what no phone could run."""
        said = self.people.of(candidate)
        if said == "right" and candidate.event_id in self.problems:
            return None
        return said if says_something(candidate.answer) else None

    def corrected(self, candidate: Candidate, files: LabelledFiles) -> Message | None:
        """The correction as a turn, if its form is sound; then it also makes a pair with the answer."""
        if candidate.correction is None:
            return None
        answer = _as_turn(candidate.correction, self.task)
        problem = self.checker.problem(candidate.prompt, answer)
        if problem:
            files.leave_out(f"correction: {problem}", candidate.event_id)
            return None
        pair = correction_pair(candidate, answer, self.task) if self.config.pairs.corrections else None
        if pair:
            files.pair(pair)
        return answer

    def example(self, candidate: Candidate, answer: Message) -> Example:
        known = {"locale": candidate.locale, "user": self.users.standing(candidate)}
        return make_example(
            self.task,
            [*candidate.prompt, answer],
            source=candidate.source,
            group=candidate.group,
            event_ids=[candidate.event_id],
            role=candidate.role,
            slices={dimension: value for dimension, value in known.items() if value},
        )


def _jury(recipe: Recipe, catalogue: Catalogue | None, answers: AnswerCache) -> Jury | None:
    """A language model's votes, where the recipe names one for verdicts or for ranking."""
    config = recipe.label.llm
    if config is None or (recipe.label.judge != "llm" and recipe.label.pairs.samples == 0):
        return None
    rubric = load_rubric(config.rubric)
    return Jury(Endpoint(config, rubric, answers), Asker(rubric, catalogue))


def _as_turn(correction: Correction, task: Task) -> Message:
    """The corrected answer as a turn; calls written as text are read as calls."""
    words, calls = correction.content.strip(), correction.tool_calls
    if not calls and task != "intent":
        words, calls = read_calls(words) or (words, [])
    return Message(role="assistant", content="" if task == "function_call" else words, tool_calls=calls)
