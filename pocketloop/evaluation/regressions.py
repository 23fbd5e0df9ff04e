"""What a candidate no longer gets right: single items for the report, with every personal value taken out."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example
from pocketloop.evaluation.paired_gates import paired_items
from pocketloop.evaluation.suite import Outcome, Outcomes
from pocketloop.privacy.placeholders import PLACEHOLDER
from pocketloop.tasks.answers import write_answer

MOST = 12
_LONGEST = 400
Scrub = Callable[[Sequence[Example]], Sequence[list[Message] | None]]
"""Conversations without personal data, in order; `None` where the scrubber is not sure."""


@dataclass(frozen=True)
class Regression:
    """One item that the champion answers better than the candidate; `turns` are scrubbed, empty where none is shown."""

    example_id: str
    reference: str
    ours: str
    theirs: str
    slices: Mapping[str, str]
    turns: tuple[tuple[str, str], ...] = ()
    withheld: str = ""
    """Why no text is shown."""


def regressions(
    outcomes: Outcomes, metric: str, examples: Mapping[str, Example], scrub: Scrub, most: int = MOST
) -> list[Regression]:
    """The largest losses against the champion, of as many classes as possible, each with its scrubbed conversation.

    Words are shown of imported examples alone. What a device's person said is not copied into a registry, not even
    scrubbed, since what is there outlives a request to be forgotten; those items are shown by id and class.
    """
    pairs = paired_items(metric, outcomes.get("adapter", ()), outcomes.get("champion", ()), "champion")
    if isinstance(pairs, str):
        return []
    lost = [pair for pair in pairs if pair[0].scores[metric] < pair[1].scores[metric]]
    chosen = _varied(sorted(lost, key=lambda pair: pair[0].scores[metric] - pair[1].scores[metric]), most)
    shown = [e for mine, _ in chosen if (e := examples.get(mine.example_id)) and not e.event_ids]
    clean = dict(zip((example.example_id for example in shown), scrub(shown) if shown else [], strict=True))
    return [_regression(mine, other, examples.get(mine.example_id), clean) for mine, other in chosen]


def _varied(pairs: list[tuple[Outcome, Outcome]], most: int) -> list[tuple[Outcome, Outcome]]:
    """The first of every class, then the second of every class, and so on."""
    seen: dict[str, int] = {}
    ranked = []
    for place, pair in enumerate(pairs):
        rank = seen[pair[0].reference] = seen.get(pair[0].reference, 0) + 1
        ranked.append((rank, place, pair))
    return [pair for _, _, pair in sorted(ranked, key=lambda entry: entry[:2])[:most]]


def _regression(
    mine: Outcome, other: Outcome, example: Example | None, clean: Mapping[str, list[Message] | None]
) -> Regression:
    turns: tuple[tuple[str, str], ...] = ()
    withheld = ""
    messages = clean.get(mine.example_id)
    if messages:
        turns = tuple((message.role, _plain(write_answer(message))) for message in messages)
    elif example is None:
        withheld = "the example is not here"
    elif example.event_ids:
        withheld = "from a device: shown by its id alone"
    else:
        withheld = "withheld: the scrubber is not sure that nothing personal is left"
    return Regression(mine.example_id, mine.reference, mine.answer, other.answer, mine.slices, turns, withheld)


def _plain(text: str) -> str:
    """Placeholders by their type alone, so that nobody's values can be told apart; and not too long."""
    plain = PLACEHOLDER.sub(lambda match: f"<{match[1]}>", text)
    plain = re.sub(r"\s+", " ", plain).strip()
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…"
