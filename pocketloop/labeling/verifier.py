"""The programmatic judge: form first, then whether the rest of the data agrees."""

from dataclasses import dataclass
from typing import Literal

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, Task
from pocketloop.contracts.recipe import Catalogue
from pocketloop.labeling.checks import FormChecker
from pocketloop.labeling.consistency import opinions
from pocketloop.labeling.extract import Candidate

DOUBTED = "other data speaks against it"


@dataclass(frozen=True)
class Verdict:
    """The judge's word on one answer; `certain` when its form alone makes it wrong."""

    verdict: Literal["right", "wrong", "unsure"]
    reason: str = ""
    certain: bool = False


def verify(
    candidates: list[Candidate], catalogue: Catalogue | None, task: Task, references: list[Example] | None = None
) -> list[Verdict]:
    """Judge each candidate's answer; what people said of it is not looked at.

    `references` are labelled examples that help to tell labels apart. A chat whose form is sound is `unsure`: form
    says nothing about whether it helped.
    """
    if not candidates:
        return []
    checker = FormChecker(task, catalogue)
    verdicts: list[Verdict] = []
    for candidate in candidates:
        problem = checker.problem(candidate.prompt, candidate.answer)
        verdicts.append(Verdict("wrong", problem, certain=True) if problem else Verdict("unsure"))
    if task == "chat":
        return verdicts
    sound = [at for at, verdict in enumerate(verdicts) if verdict.verdict != "wrong"]
    texts = [_words(candidates[at].prompt) for at in sound]
    labels = [_label(candidates[at].answer) for at in sound]
    groups = [candidates[at].group for at in sound]
    for example in references or []:
        texts.append(_words(example.prompt))
        labels.append(_label(example.answer))
        groups.append(example.group)
    for at, opinion in zip(sound, opinions(texts, labels, groups), strict=False):
        if opinion == "doubts":
            verdicts[at] = Verdict("wrong", DOUBTED)
        elif opinion == "agrees":
            verdicts[at] = Verdict("right")
    return verdicts


def _words(prompt: list[Message]) -> str:
    return "\n".join(message.content for message in prompt if message.role == "user")


def _label(answer: Message) -> str:
    return " ".join(sorted(call.name for call in answer.tool_calls)) or answer.content.strip()
