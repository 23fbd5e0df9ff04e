"""A language model's verdicts as reward: what online training learns from where no program can tell right from wrong.

Lee et al., "RLAIF vs. RLHF: Scaling Reinforcement Learning from Human Feedback with AI Feedback" (ICML 2024), section
2.2.2 ("direct RLAIF"), with each verdict asked for in both orders.
"""

from collections.abc import Sequence

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Conversation, Message
from pocketloop.contracts.labels import Rubric
from pocketloop.contracts.recipe import JudgeEndpoint
from pocketloop.contracts.reports import JudgeUse
from pocketloop.labeling.answer_cache import AnswerCache
from pocketloop.labeling.endpoint import Endpoint
from pocketloop.labeling.jury import INCONSISTENT, NOT_YET, Jury
from pocketloop.labeling.questions import Asker
from pocketloop.labeling.samples import as_answer
from pocketloop.tasks.forms import FormChecker
from pocketloop.tasks.tasks import TaskSpec

_UNDECIDED = 0.5

_Key = tuple[tuple[tuple[str, str], ...], str]
"""A conversation's turns (role, content), and the answer to it."""


class JudgeReward:
    """Rates answers to conversations: 1 is right, 0 wrong, 0.5 where the verdict depends on the order of asking.

    An answer whose form is unsound, or on which the judge finds no usable words, earns nothing: were it more, garbage
    that confuses the judge would pay. The same answer to the same conversation is asked about once, in this run and in
    every later one that uses `answers`; `config.budget_tokens` bounds what this object spends.

    Raises:
        ConfigError: the endpoint's key is not set.
    """

    def __init__(self, config: JudgeEndpoint, rubric: Rubric, task: TaskSpec, answers: AnswerCache) -> None:
        self._jury = Jury(Endpoint(config, rubric, answers), Asker(rubric, task.catalogue))
        self._checker = FormChecker(task.name, task.catalogue)
        self._read = as_answer(task.name)
        self._known: dict[_Key, float] = {}

    @property
    def use(self) -> JudgeUse:
        """What was asked so far."""
        return self._jury.use()

    def __call__(self, conversations: Sequence[Conversation], texts: Sequence[str]) -> list[float]:
        """The reward of each text as the answer to the conversation at its place, in [0, 1].

        Raises:
            ConfigError: the endpoint refuses to be asked at all.
            DataError: the endpoint fails, or the budget is spent, before every answer has its verdict.
        """
        keys = [
            (tuple((turn["role"], turn["content"]) for turn in conversation), text)
            for conversation, text in zip(conversations, texts, strict=True)
        ]
        new = list(dict.fromkeys(key for key in keys if key not in self._known))
        self._jury.endpoint.run(self._rate, new)
        missing = sum(key not in self._known for key in new)
        if missing:
            use = self.use
            raise DataError(
                f"the judge {use.model} left {missing} of {len(new)} answers without a verdict: "
                f"{use.why or 'it was not asked'}; see label.llm (its verdicts so far are kept: running again goes on)"
            )
        return [self._known[key] for key in keys]

    async def _rate(self, key: _Key) -> None:
        turns, text = key
        prompt = [Message.model_validate({"role": role, "content": content}) for role, content in turns]
        answer = self._read(text)
        if self._checker.problem(prompt, answer):
            self._known[key] = 0.0
            return
        verdict = await self._jury.judge(prompt, answer)
        if verdict.reason == NOT_YET:
            return
        undecided = verdict.reason == INCONSISTENT
        self._known[key] = _UNDECIDED if undecided else float(verdict.verdict == "right")
