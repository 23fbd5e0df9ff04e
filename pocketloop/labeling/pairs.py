"""Preference pairs and rated answers from what people did: corrections, and thumbs on answers to the same prompt."""

from collections.abc import Iterator

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import PreferencePair, RatedAnswer
from pocketloop.contracts.files import canonical_json, sha256_text
from pocketloop.contracts.labels import Says
from pocketloop.contracts.names import Task
from pocketloop.labeling.extract import Candidate, EventFiles, Place
from pocketloop.tasks.answers import write_answer

AnswerKey = tuple[str, str]
"""Digests of a prompt and of an answer to it."""


def correction_pair(candidate: Candidate, corrected: Message, task: Task) -> PreferencePair | None:
    """The correction before the answer that was given; `None` when they say the same, or nothing was answered."""
    if not says_something(candidate.answer) or write_answer(corrected) == write_answer(candidate.answer):
        return None
    return make_pair(
        candidate.prompt,
        corrected,
        candidate.answer,
        task=task,
        source=candidate.source,
        group=candidate.group,
        event_ids=[candidate.event_id],
        role=candidate.role,
        reason="correction",
    )


def rated_answer(candidate: Candidate, said: Says, task: Task) -> RatedAnswer:
    """The answer as its user (or a rater) found it."""
    messages = [*candidate.prompt, candidate.answer]
    content = canonical_json([task, said, [message.model_dump(mode="json") for message in messages]])
    return RatedAnswer(
        rated_id=sha256_text(content)[:20],
        task=task,
        source=candidate.source,
        group=candidate.group,
        event_ids=[candidate.event_id],
        role=candidate.role,
        messages=messages,
        desirable=said == "right",
    )


def says_something(answer: Message) -> bool:
    """Whether there is anything in the answer to like or dislike."""
    return bool(answer.content.strip() or answer.tool_calls)


class Thumbs:
    """Finds answers to one prompt of which people liked one and disliked another.

    An answer counts as liked when more people liked it than not. A pair belongs to the group of the person who liked
    the chosen answer, and names both events: nothing but a thumb of the other person is in it, for both asked the same.
    Holds some 400 bytes a thumb.
    """

    def __init__(self) -> None:
        self._votes: dict[str, dict[str, list[tuple[bool, Place]]]] = {}
        self._used: set[AnswerKey] = set()
        self._found: list[tuple[Place, Place]] = []

    def see(self, key: AnswerKey, place: Place, said: Says) -> None:
        """Take one person's word into account."""
        prompt, answer = key
        self._votes.setdefault(prompt, {}).setdefault(answer, []).append((said == "right", place))

    def settle(self) -> None:
        """Find the pairs: for each prompt its best liked answer before each disliked one."""
        for prompt, answers in sorted(self._votes.items()):
            balance = {answer: sum(1 if up else -1 for up, _ in votes) for answer, votes in answers.items()}
            best = min(answers, key=lambda answer: (-balance[answer], answer))
            if balance[best] <= 0:
                continue
            for worse in sorted(answer for answer in answers if balance[answer] < 0):
                self._found.append((_place(answers[best], True), _place(answers[worse], False)))
                self._used |= {(prompt, best), (prompt, worse)}
        self._votes.clear()

    def has(self, key: AnswerKey) -> bool:
        """Whether this answer to this prompt stands in a pair."""
        return key in self._used

    def pairs(self, events: EventFiles, task: Task) -> Iterator[PreferencePair]:
        """The pairs, read from the files."""
        for liked, disliked in self._found:
            better, worse = events.at(liked), events.at(disliked)
            yield make_pair(
                better.prompt,
                better.answer,
                worse.answer,
                task=task,
                source=better.source,
                group=better.group,
                event_ids=[better.event_id, worse.event_id],
                role=better.role,
                reason="thumbs",
            )


def make_pair(
    prompt: list[Message], chosen: Message, rejected: Message, *, task: Task, reason: str, **origin: object
) -> PreferencePair:
    """Build a pair whose id is the digest of what it says."""
    said = [task, *([turn.model_dump(mode="json") for turn in turns] for turns in (prompt, [chosen], [rejected]))]
    return PreferencePair.model_validate(
        {
            "pair_id": sha256_text(canonical_json(said))[:20],
            "task": task,
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "reason": reason,
            **origin,
        }
    )


def _place(votes: list[tuple[bool, Place]], liked: bool) -> Place:
    return min(place for up, place in votes if up == liked)


def answer_key(candidate: Candidate) -> AnswerKey:
    """By what answers to one prompt are told."""
    prompt = canonical_json([[turn.role, write_answer(turn)] for turn in candidate.prompt])
    return sha256_text(prompt)[:24], sha256_text(write_answer(candidate.answer))[:16]
