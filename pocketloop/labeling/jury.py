"""Votes of one model: a word counts only where the order in which it is asked makes no difference."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

from pocketloop.contracts.events import Message
from pocketloop.contracts.labels import Preferred
from pocketloop.contracts.reports import JudgeUse
from pocketloop.labeling.endpoint import Endpoint, NoReply, NoUsableReply, Stopped
from pocketloop.labeling.judges import RIGHT, Verdict
from pocketloop.labeling.questions import Asker, Order, Question

INCONSISTENT = "the judge's verdict depends on the order"
FAILED = "the judge gave no usable verdict"
NOT_YET = "not judged yet"

_FIRST, _SECOND = "first", "second"
_ORDERS: tuple[Order, Order] = (0, 1)

Result = TypeVar("Result")


class Jury:
    """Each vote is asked for in both orders, and `samples` more votes where the first one is not the same in both.

    Of these, more than half must say the same for it to count.
    """

    def __init__(self, endpoint: Endpoint, asker: Asker) -> None:
        self.endpoint = endpoint
        self._asker = asker
        self._samples = endpoint.config.samples
        self._counts = Counter(asked=0, cached=0, inconsistent=0, failed=0, unfinished=0)

    def use(self) -> JudgeUse:
        """What was asked so far."""
        return self.endpoint.use(**self._counts)

    async def judge(self, prompt: list[Message], answer: Message) -> Verdict:
        """Right or wrong; a wrong answer's reason is the criterion that it breaks."""

        async def word(ballot: _Ballot) -> Verdict | None:
            broken = ""

            async def vote(number: int) -> str | None:
                nonlocal broken
                one, other = [await ballot.ask(self._asker.verdict(prompt, answer, o, number)) for o in _ORDERS]
                if one["verdict"] != other["verdict"]:
                    return None
                broken = broken or one["criterion"].replace("none", "")
                return str(one["verdict"])

            said = await self._majority(vote)
            if said == "wrong":
                return Verdict("wrong", f"the judge finds it wrong: {broken or 'as a whole'}")
            return RIGHT if said else None

        verdict, why = await self._counted(word)
        return verdict or Verdict("unsure", why)

    async def best_and_worst(self, prompt: list[Message], answers: list[Message]) -> tuple[int, int] | None:
        """Places of the answers that win and lose most often when each is compared with each other.

        `None` when the best does not beat the worst, or when the judge is out of reach.
        """

        async def word(ballot: _Ballot) -> tuple[int, int] | None:
            wins, beaten = [0] * len(answers), set()
            for pair in combinations(range(len(answers)), 2):
                shown = (answers[pair[0]], answers[pair[1]])

                async def vote(number: int, shown: tuple[Message, Message] = shown) -> str | None:
                    one, other = [await ballot.ask(self._asker.comparison(prompt, shown, o, number)) for o in _ORDERS]
                    return str(one["better"]) if one["better"] != other["better"] else None  # they swapped places

                said = await self._majority(vote)
                if said is not None:
                    winner, loser = pair if said == _FIRST else pair[::-1]
                    wins[winner] += 1
                    wins[loser] -= 1
                    beaten.add((winner, loser))
            ends = wins.index(max(wins)), wins.index(min(wins))
            return ends if ends in beaten else None

        return (await self._counted(word))[0]

    async def prefer(self, prompt: list[Message], ours: Message, theirs: Message) -> Preferred | None:
        """Which answer is preferred in either order, each asked once; `None` when the judge is out of reach."""

        async def word(ballot: _Ballot) -> Preferred | None:
            shown = (ours, theirs)
            one, other = [await ballot.ask(self._asker.comparison(prompt, shown, order)) for order in _ORDERS]
            return Preferred(when_first=one["better"] == _FIRST, when_second=other["better"] == _SECOND)

        preferred = (await self._counted(word))[0]
        if preferred is not None and preferred.when_first != preferred.when_second:
            self._counts["inconsistent"] += 1
        return preferred

    async def _majority(self, vote: Callable[[int], Awaitable[str | None]]) -> str | None:
        first = await vote(0)
        if first is not None:
            return first
        votes: Counter[str] = Counter()
        for number in range(1, self._samples + 1):
            word = await vote(number)
            if word is not None:
                votes[word] += 1
                if votes[word] > self._samples / 2:
                    return word
        return None

    async def _counted(self, work: "Callable[[_Ballot], Awaitable[Result | None]]") -> tuple[Result | None, str]:
        """What came of asking about one answer, or why nothing did; each answer is counted once as asked or cached."""
        ballot = _Ballot(self.endpoint)
        try:
            result = await work(ballot)
        except (Stopped, NoReply) as error:
            lied = isinstance(error, NoUsableReply)
            self._counts["failed" if lied else "unfinished"] += 1
            self._counts["asked"] += ballot.sent
            return None, FAILED if lied else NOT_YET
        self._counts["asked" if ballot.sent else "cached"] += 1
        if result is None:
            self._counts["inconsistent"] += 1
            return None, INCONSISTENT
        return result, ""


@dataclass
class _Ballot:
    """The questions about one answer; `sent` when any of them had to be sent."""

    endpoint: Endpoint
    sent: bool = False

    async def ask(self, question: Question) -> dict[str, Any]:
        known = self.endpoint.known(question)
        if known is not None:
            return known
        if not self.endpoint.stopped:
            self.sent = True
        return await self.endpoint.ask(question)
