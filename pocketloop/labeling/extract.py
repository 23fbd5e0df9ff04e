"""From scrubbed events to candidates: a prompt, the answer that was given, and what the person thought of it.

Events are read one by one, as often as a stage needs them, and can be found again by their place in the files: no
stage holds them all.
"""

import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from pocketloop.contracts.events import Correction, Message
from pocketloop.contracts.labels import Says
from pocketloop.contracts.names import Task
from pocketloop.contracts.recipe import DataConfig, EventsSource
from pocketloop.privacy.placeholders import PLACEHOLDER
from pocketloop.privacy.records import ScrubbedEvent
from pocketloop.tasks.turns import up_to_answer

LOW_CONFIDENCE = 0.5

Person = Literal["up", "down"] | None


@dataclass(frozen=True)
class Candidate:
    """What one event proposes to learn. `group` is the pseudonym that scrubbing gave the device, `role` its skill's."""

    event_id: str
    group: str
    source: str
    prompt: list[Message]
    answer: Message
    rating: Person
    correction: Correction | None
    moment: float = 0.0
    """Seconds since 1970."""
    metrics: dict[str, float | bool] = field(default_factory=dict)
    role: str = ""
    locale: str = ""

    @property
    def person(self) -> Person:
        """What the person said of the answer; to correct it is to call it wrong."""
        return self.rating or ("down" if self.correction is not None else None)

    @property
    def in_doubt(self) -> bool:
        """Whether the phone's router was unsure: little confidence, or the cloud had to answer (or should have)."""
        confidence = self.metrics.get("confidence")
        unsure = confidence is not None and not math.isnan(confidence) and confidence < LOW_CONFIDENCE
        return unsure or self.metrics.get("fallback") is True or self.metrics.get("low_confidence") is True

    @property
    def words(self) -> int:
        """A mask of 64 bits, one for (nearly) every word of the last request."""
        said = next((turn.content for turn in reversed(self.prompt) if turn.role == "user"), "")
        mask = 0
        for word in PLACEHOLDER.sub(r" \1 ", said).casefold().split():
            mask |= 1 << (zlib.crc32(word.strip(".,!?").encode("utf-8", "surrogatepass")) % 64)
        return mask


class Answered(Protocol):
    """What a candidate tells without its words; so does what is kept of it."""

    @property
    def event_id(self) -> str:
        """Id of the event."""
        ...

    @property
    def group(self) -> str:
        """The device's pseudonym."""
        ...

    @property
    def moment(self) -> float:
        """Seconds since 1970."""
        ...

    @property
    def person(self) -> Person:
        """What its user said of it."""
        ...

    @property
    def in_doubt(self) -> bool:
        """Whether the phone was unsure."""
        ...

    @property
    def words(self) -> int:
        """A mask of the request's words."""
        ...


def thumb_of(answered: Answered) -> Says | None:
    """The user's own word on an answer."""
    words: dict[Person, Says | None] = {"up": "right", "down": "wrong", None: None}
    return words[answered.person]


class Place(NamedTuple):
    """Where an event's line begins: the number of its file, and bytes into it."""

    shard: int
    offset: int


class Found(NamedTuple):
    """An event of the files; `candidate` is `None` when it holds no answer."""

    place: Place
    event_id: str
    group: str
    candidate: Candidate | None


def roles_of(data: DataConfig) -> dict[str, str]:
    """The role of each skill whose events the recipe reads."""
    return {source.skill: source.role or "" for source in data.sources if isinstance(source, EventsSource)}


class EventFiles:
    """The events of `folder` (`events-*.jsonl`, `ScrubbedEvent`) as candidates for one task; `roles` by skill."""

    def __init__(self, folder: Path, task: Task, roles: Mapping[str, str] | None = None) -> None:
        self.shards = sorted(folder.glob("events-*.jsonl"))
        self._task = task
        self._roles = roles or {}

    def __iter__(self) -> Iterator[Found]:
        for shard in range(len(self.shards)):
            yield from self.shard(shard)

    def shard(self, shard: int) -> Iterator[Found]:
        """The events of one file."""
        offset = 0
        with open(self.shards[shard], "rb") as lines:
            for line in lines:
                yield self._found(Place(shard, offset), line)
                offset += len(line)

    def at(self, place: Place) -> Candidate:
        """The candidate that an iteration found there."""
        with open(self.shards[place.shard], "rb") as lines:
            lines.seek(place.offset)
            candidate = self._found(place, lines.readline()).candidate
        assert candidate is not None
        return candidate

    def _found(self, place: Place, line: bytes) -> Found:
        event = ScrubbedEvent.model_validate_json(line)
        role = self._roles.get(event.adapter.skill, "")
        return Found(place, event.event_id, event.group, candidate_of(event, self._task, role))


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
