"""Label: keep the answers that the judge and the person stand behind; pair and rate what people have spoken on.

Two passes over the events, none of which is ever held: the first lets the judge look at all answers, the second
decides on one after the other.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Correction, Message
from pocketloop.contracts.files import atomic_dir
from pocketloop.contracts.kept import kept_in
from pocketloop.contracts.labels import HumanVerdict, Says
from pocketloop.contracts.loading import load_rubric
from pocketloop.contracts.names import Task
from pocketloop.contracts.recipe import Catalogue, LabelConfig, Recipe
from pocketloop.contracts.reports import LabelReport
from pocketloop.labeling.answer_cache import AnswerCache
from pocketloop.labeling.endpoint import Endpoint
from pocketloop.labeling.extract import thumb_of
from pocketloop.labeling.judges import Judge, Verdict
from pocketloop.labeling.jury import Jury
from pocketloop.labeling.llm_judge import LlmJudge
from pocketloop.labeling.pairs import Thumbs, correction_pair, rated_answer
from pocketloop.labeling.people import Drawn, People, demand
from pocketloop.labeling.questions import Asker
from pocketloop.labeling.rows import Lines, Row, Rows, example_of, line_of, with_user
from pocketloop.labeling.samples import rank_samples
from pocketloop.labeling.users import Users
from pocketloop.labeling.verifier import Verifier
from pocketloop.labeling.writing import LabelledFiles
from pocketloop.tasks.answers import read_calls

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
    kept: Path | None = None,
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
        kept: cache of what is known of each shard (`rows.Rows`).
        samples: file of `Sampled` answers of the current adapter, for the judge to rank.

    Raises:
        ConfigError: the judge's rubric or key is missing, or its endpoint refuses to be asked.
        LabelQualityError: the judge agrees too little with enough rated answers to be trusted.
        DataError: nothing is left.
    """
    with AnswerCache(cache) as answers, kept_in(kept) as known:
        labelling = _Labelling(folder, recipe, catalogue, list(people), answers, known)
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
        self,
        folder: Path,
        recipe: Recipe,
        catalogue: Catalogue | None,
        said: list[HumanVerdict],
        answers: AnswerCache,
        kept: Path,
    ) -> None:
        self.folder = folder
        self.task: Task = recipe.task
        self.config: LabelConfig = recipe.label
        self.rows = Rows(folder, recipe, catalogue, kept)
        self.events = self.rows.events
        self.checker = self.rows.checker
        self.jury = _jury(recipe, catalogue, answers)
        self.judge: Judge = Verifier(recipe.task, self.rows.counts)
        if self.jury and recipe.label.judge == "llm":
            self.judge = LlmJudge(self.jury, self.events, recipe.label.min_rated)
        self.people = People(said, self.judge.rubric)
        self.for_people = Drawn(self.events, recipe.task, self.judge)
        self.thumbs = Thumbs()
        self.users = Users()

    def look(self) -> None:
        """First pass: the judge sees the answers of sound form."""
        for row, _ in self.rows.of_events():
            if not row.answered:
                continue
            self.users.see(row)
            if row.problem is None:
                self.judge.see(row, rated=self.people.of(row) is not None)
            said = self.rating(row)
            if said and self.config.pairs.thumbs and not row.corrects:
                self.thumbs.see(row.answer, row.place, said)
        for row, _ in self.rows.of_examples():
            if self.example_problem(row) is None:
                self.judge.refer(row)
        self.thumbs.settle()
        self.judge.settle()

    def decide(self, files: LabelledFiles, samples: Path | None) -> LabelReport:
        """Second pass: keep, correct or leave out; then see whether the judge may be trusted with that."""
        files.carry(self.folder / "quarantine.jsonl")
        for row, lines in self.rows.of_examples():
            problem = self.example_problem(row)
            if problem:
                files.leave_out(problem, None, f"example {row.key} of {row.source}")
            else:
                files.keep(lines.example)
        for row, lines, verdict in self.judged():
            self.decide_one(row, lines, verdict, files)
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

    def example_problem(self, row: Row) -> str | None:
        return RATED_WRONG if self.people.on(row.key) == "wrong" else row.problem

    def judged(self) -> Iterator[tuple[Row, Lines, Verdict | None]]:
        """Every event with the judge's word on it; `None` where there is nothing to judge."""
        stream = self.rows.of_events()
        while chunk := list(islice(stream, _CHUNK)):
            sound = [row for row, _ in chunk if row.answered and row.problem is None]
            verdicts = dict(zip((row.key for row in sound), self.judge.verdicts(sound), strict=True))
            for row, lines in chunk:
                yield row, lines, verdicts.get(row.key)

    def decide_one(self, row: Row, lines: Lines, verdict: Verdict | None, files: LabelledFiles) -> None:
        if not row.answered:
            files.leave_out("no answer", row.key)
            return
        verdict = verdict or Verdict("wrong", row.problem or "")
        said = self.people.of(row)
        differ = self.people.compare(row, verdict)
        if self.people.on(row.key) is None:
            self.for_people.see(row, verdict, said, differ)
        user = self.users.standing(row)
        corrected = self.corrected(row, user, files) if row.corrects else None
        rating = self.rating(row)
        if rating and corrected is None and not self.thumbs.has(row.answer):
            own = thumb_of(row) == rating
            rated = lines.rated if own else line_of(rated_answer(self.events.at(row.place), rating, self.task))
            files.rate(rated, liked=rating == "right")
        if row.corrects:
            if corrected is not None:
                files.corrected += 1
                files.keep(corrected)
        elif row.problem:
            files.leave_out(row.problem, row.key)
        elif said == "right":
            files.keep(with_user(lines.example, user))
        elif verdict.reason:
            files.leave_out(verdict.reason, row.key)
        elif said == "wrong":
            files.leave_out(THUMBS_DOWN if row.person == "down" else RATED_WRONG, row.key)
        else:
            files.keep(with_user(lines.example, user))

    def rating(self, row: Row) -> Says | None:
        """What people said of an answer, if it is one to learn from: not to like what no phone could run."""
        said = self.people.of(row)
        if said == "right" and row.problem:
            return None
        return said if row.says_something else None

    def corrected(self, row: Row, user: str, files: LabelledFiles) -> str | None:
        """The example with the correction, if its form is sound; then it also makes a pair with the answer."""
        candidate = self.events.at(row.place)
        assert candidate.correction is not None
        answer = _as_turn(candidate.correction, self.task)
        problem = self.checker.problem(candidate.prompt, answer)
        if problem:
            files.leave_out(f"correction: {problem}", row.key)
            return None
        pair = correction_pair(candidate, answer, self.task) if self.config.pairs.corrections else None
        if pair:
            files.pair(pair)
        return line_of(example_of(candidate, answer, self.task, user))


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
