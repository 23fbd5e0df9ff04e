import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.events import Message
from pocketloop.labeling.extract import Candidate, Place
from pocketloop.labeling.priority import Queue


def candidate(n: int, said: str = "", group: str = "", moment: float = 0.0, **metrics: Any) -> Candidate:
    prompt = [Message(role="user", content=said or f"request {n}")]
    answer = Message(role="assistant", content="ok")
    return Candidate(f"e{n}", group or f"g{n}", "s", prompt, answer, None, None, moment, metrics)


def order(*entries: tuple[Candidate, bool], enough: int = 100) -> list[int]:
    queue = Queue(enough)
    for one, rated in entries:
        queue.add(one, Place(0, int(one.event_id[1:])), rated)
    return [place.offset for place in queue]


@pytest.mark.parametrize(
    ("metrics", "doubt"),
    [
        ({}, False),
        ({"confidence": 0.4}, True),
        ({"confidence": 0.5}, False),
        ({"confidence": math.nan}, False),
        ({"fallback": True}, True),
        ({"fallback": False, "latency_ms": 3.0}, False),
        ({"low_confidence": True}, True),
    ],
)
def test_a_phone_in_doubt_says_so_in_its_metrics(metrics: dict[str, Any], doubt: bool) -> None:
    assert candidate(1, **metrics).in_doubt is doubt


@pytest.mark.parametrize(
    ("again", "seconds", "same_device", "first"),
    [
        ("play jazz in the kitchen please", 60, True, True),
        ("play jazz in the kitchen please", 600, True, False),
        ("play jazz in the kitchen please", 60, False, False),
        ("what is the weather tomorrow", 60, True, False),
    ],
)
def test_to_ask_for_something_alike_soon_tells_that_the_earlier_answer_did_not_help(
    again: str, seconds: float, same_device: bool, first: bool
) -> None:
    asked = candidate(1, "Play jazz in the kitchen", "g", 1000.0)
    later = candidate(2, again, "g" if same_device else "h", 1000.0 + seconds)
    rest = [(candidate(n), False) for n in range(3, 23)]
    found = order(*rest, (later, False), (asked, False))
    assert (found[0] == 1) is first
    assert sorted(found) == list(range(1, 23))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40), st.integers(0, 5), st.randoms())
def test_doubts_come_first_then_enough_of_the_rated_then_the_rest_in_whatever_order_they_are_read(
    kinds: list[tuple[bool, bool]], enough: int, random: Any
) -> None:
    entries = [(candidate(n, fallback=doubt), rated) for n, (doubt, rated) in enumerate(kinds)]
    found = order(*entries, enough=enough)
    ranks = [1 if kinds[n][1] else 0 if kinds[n][0] else 2 for n in found]
    assert ranks == sorted(ranks)
    rated = [n for n in found if kinds[n][1]]
    assert len(rated) == min(enough, sum(was for _, was in kinds))
    assert [n for n in rated if kinds[n][0]] == rated[: sum(kinds[n][0] for n in rated)]
    assert {n for n in found if not kinds[n][1]} == {n for n, (_, was) in enumerate(kinds) if not was}
    random.shuffle(entries)
    assert order(*entries, enough=enough) == found
