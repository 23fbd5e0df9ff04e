"""From scrubbed events to candidates: a prompt, the answer that was given, and what the person thought of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pocketloop.contracts.events import Correction, Message
from pocketloop.contracts.examples import Task
from pocketloop.contracts.files import read_jsonl
from pocketloop.privacy.records import ScrubbedEvent
from pocketloop.tasks.turns import up_to_answer


@dataclass(frozen=True)
class Candidate:
    """What one event proposes to learn. `group` is the pseudonym that scrubbing gave the device."""

    event_id: str
    group: str
    source: str
    prompt: list[Message]
    answer: Message
    rating: Literal["up", "down"] | None
    correction: Correction | None

    @property
    def person(self) -> Literal["up", "down"] | None:
        """What the person said of the answer; to correct it is to call it wrong."""
        return self.rating or ("down" if self.correction is not None else None)


def extract(folder: Path, task: Task) -> tuple[list[Candidate], list[str]]:
    """Read the events in `folder` (`events-*.jsonl`); the second list holds the ids of events without an answer."""
    candidates: list[Candidate] = []
    unanswered: list[str] = []
    for shard in sorted(folder.glob("events-*.jsonl")):
        for row in read_jsonl(shard):
            event = ScrubbedEvent.model_validate(row)
            candidate = candidate_of(event, task)
            if candidate is None:
                unanswered.append(event.event_id)
            else:
                candidates.append(candidate)
    return candidates, unanswered


def candidate_of(event: ScrubbedEvent, task: Task) -> Candidate | None:
    """The event as a candidate; `None` when no assistant turn follows a user's.

    A chat that was corrected keeps its last turn as the answer, for that is what the person corrected.
    """
    correction = event.feedback.corrected()
    said = up_to_answer(task, event.messages, very_last=correction is not None)
    if said is None:
        return None
    return Candidate(
        event_id=event.event_id,
        group=event.group,
        source=f"events:{event.adapter.skill}",
        prompt=said[:-1],
        answer=said[-1],
        rating=event.feedback.rating,
        correction=correction,
    )
