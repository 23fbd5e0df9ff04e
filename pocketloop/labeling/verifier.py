"""The programmatic judge: does the rest of the data agree with the answer's label or function?"""

from collections.abc import Sequence

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example
from pocketloop.contracts.labels import RIGHT_ANSWER
from pocketloop.contracts.names import Task
from pocketloop.contracts.reports import JudgeUse
from pocketloop.labeling.consistency import Consistency, Labelled
from pocketloop.labeling.extract import Candidate, Place
from pocketloop.labeling.judges import RIGHT, UNSURE, Verdict

DOUBTED = "other data speaks against it"


class Verifier:
    """Judges labels and functions by what the same words mean elsewhere.

    A chat whose form is sound stays `unsure`: form says nothing about whether it helped.
    """

    name = "verifier"
    rubric = RIGHT_ANSWER
    use: JudgeUse | None = None

    def __init__(self, task: Task) -> None:
        self._task = task
        self._consistency = Consistency()

    def see(self, candidate: Candidate, place: Place, rated: bool) -> None:
        """Take the answer into account."""
        if self._task != "chat":
            self._consistency.see(_labelled(candidate))

    def refer(self, example: Example) -> None:
        """Take a labelled example into account: it helps to tell labels apart."""
        if self._task != "chat":
            item = Labelled(example.example_id, _words(example.prompt), _label(example.answer), example.group)
            self._consistency.see(item)

    def settle(self) -> None:
        """Learn what labels usually stand for."""
        self._consistency.settle()

    def verdicts(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        """`wrong` where other data speaks against the answer, `unsure` where there is too little of it."""
        if self._task == "chat":
            return [UNSURE] * len(candidates)
        told = {"agrees": RIGHT, "doubts": Verdict("wrong", DOUBTED), "cannot tell": UNSURE}
        return [told[opinion] for opinion in self._consistency.opinions([_labelled(one) for one in candidates])]


def _labelled(candidate: Candidate) -> Labelled:
    return Labelled(candidate.event_id, _words(candidate.prompt), _label(candidate.answer), candidate.group)


def _words(prompt: list[Message]) -> str:
    return "\n".join(message.content for message in prompt if message.role == "user")


def _label(answer: Message) -> str:
    return " ".join(sorted(call.name for call in answer.tool_calls)) or answer.content.strip()
