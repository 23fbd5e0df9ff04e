"""From scrubbed events to candidates: a prompt, the answer that was given, and what the person thought of it.

Events are read one by one, as often as a stage needs them, and can be found again by their place in the files: no
stage holds them all.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from pocketloop.contracts.events import Correction, Message
from pocketloop.contracts.names import Task
from pocketloop.contracts.recipe import DataConfig, EventsSource
from pocketloop.privacy.records import ScrubbedEvent
from pocketloop.tasks.turns import up_to_answer


@dataclass(frozen=True)
class Candidate:
    """What one event proposes to learn. `group` is the pseudonym that scrubbing gave the device, `role` its skill's."""

    event_id: str
    group: str
    source: str
    prompt: list[Message]
    answer: Message
    rating: Literal["up", "down"] | None
    correction: Correction | None
    moment: float = 0.0
    """Seconds since 1970."""
    metrics: dict[str, float | bool] = field(default_factory=dict)
    role: str = ""
    locale: str = ""

    @property
    def person(self) -> Literal["up", "down"] | None:
        """What the person said of the answer; to correct it is to call it wrong."""
        return self.rating or ("down" if self.correction is not None else None)


class Place(NamedTuple):
    """Where an event's line begins: the number of its file, and bytes into it."""

    shard: int
    offset: int


class Found(NamedTuple):
    """An event of the files; `candidate` is `None` when it holds no answer."""

    place: Place
    event_id: str
    candidate: Candidate | None


def roles_of(data: DataConfig) -> dict[str, str]:
    """The role of each skill whose events the recipe reads."""
    return {source.skill: source.role or "" for source in data.sources if isinstance(source, EventsSource)}


class EventFiles:
    """The events of `folder` (`events-*.jsonl`, `ScrubbedEvent`) as candidates for one task; `roles` by skill."""

    def __init__(self, folder: Path, task: Task, roles: Mapping[str, str] | None = None) -> None:
        self._shards = sorted(folder.glob("events-*.jsonl"))
        self._task = task
        self._roles = roles or {}

    def __iter__(self) -> Iterator[Found]:
        for shard, path in enumerate(self._shards):
            offset = 0
            with open(path, "rb") as lines:
                for line in lines:
                    yield self._found(Place(shard, offset), line)
                    offset += len(line)

    def at(self, place: Place) -> Candidate:
        """The candidate that an iteration found there."""
        with open(self._shards[place.shard], "rb") as lines:
            lines.seek(place.offset)
            candidate = self._found(place, lines.readline()).candidate
        assert candidate is not None
        return candidate

    def _found(self, place: Place, line: bytes) -> Found:
        event = ScrubbedEvent.model_validate_json(line)
        return Found(place, event.event_id, candidate_of(event, self._task, self._roles.get(event.adapter.skill, "")))


def candidate_of(event: ScrubbedEvent, task: Task, role: str = "") -> Candidate | None:
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
        moment=event.ts.timestamp(),
        metrics=event.metrics,
        role=role,
        locale=event.locale.strip(),
    )
