"""Slices: who is worse off than the average says."""

import random

import pytest

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import make_example
from pocketloop.contracts.reports import EvaluationReport, SetResult, wilson
from pocketloop.evaluation.slices import OTHER, describe, members, slice_results
from pocketloop.evaluation.statistics import estimate
from pocketloop.evaluation.suite import Outcome
from pocketloop.tasks.slices import slices_of


def outcome(number: int, score: float, **slices: str) -> Outcome:
    return Outcome(example_id=str(number), scores={"m": score}, answer="a", reference="a", slices=slices)


def test_an_example_is_in_the_slices_that_the_data_names_and_that_can_be_seen() -> None:
    turns = [
        Message(role="user", content="Is there a table for four tonight?"),
        Message(role="assistant", content="Yes."),
        Message(role="user", content="Take it."),
        Message(role="assistant", content="Done."),
    ]
    told = {"locale": "de-DE", "user": "new"}
    example = make_example("chat", turns, source="s", role="waiter", slices=told, dialogue="d")
    assert slices_of(example, "book") == {
        **told, "length": "1 to 5 words", "tool": "book", "agent": "waiter", "turn": "2"
    }  # fmt: skip


def test_small_slices_are_pooled_and_no_item_is_lost() -> None:
    locales = ["de"] * 30 + ["en"] * 25 + ["fr"] * 3 + ["pl"] * 2
    found = members([outcome(n, 1, locale=locale, length="short") for n, locale in enumerate(locales)])
    assert {name: len(places) for name, places in found.items()} == {
        ("locale", "de"): 30, ("locale", "en"): 25, ("locale", OTHER): 5
    }  # fmt: skip
    assert sorted(place for places in found.values() for place in places) == list(range(60))


def test_the_worst_slice_comes_first_with_its_n_and_an_interval_for_all_of_them_together() -> None:
    items = [outcome(n, float(n % 10 != 0), locale="en") for n in range(100)]
    items += [outcome(100 + n, float(n % 2), locale="de") for n in range(40)]
    worst, best = slice_results(items, "adapter", "heldout", "m")
    assert (worst.name, worst.estimate.n, worst.estimate.value, worst.family) == ("locale=de", 40, 0.5, 2)
    assert worst.joint == pytest.approx(wilson(20, 40, 0.975))
    assert best.name == "locale=en" and best.joint[0] < best.estimate.low
    result = SetResult(model="adapter", set="heldout", metrics={"m": estimate([1.0])}, seconds=1, tokens=1)
    report = EvaluationReport(results=[result], slices=[best, worst])
    assert report.worst_slice() == worst
    assert report.worst_slice("champion") is None
    assert describe(worst).startswith("locale=de: m 0.500 on 40 items, the worst of 2 slices")


def test_items_to_which_the_metric_does_not_apply_are_in_no_slice() -> None:
    items = [outcome(n, 1, locale="de" if n % 2 else "en") for n in range(60)]
    items += [Outcome(example_id="x", scores={}, answer="", reference="", slices={"locale": "de"})] * 50
    assert [one.estimate.n for one in slice_results(items, "adapter", "heldout", "m")] == [30, 30]


def test_all_intervals_of_a_family_hold_together_as_often_as_they_say() -> None:
    draw, held = random.Random(5), 0
    for _ in range(200):
        items = [outcome(n, float(draw.random() < 0.8), tool=f"t{n % 12}") for n in range(600)]
        held += all(low <= 0.8 <= high for low, high in (one.joint for one in slice_results(items, "a", "s", "m")))
    assert held >= 184  # 95 % of 200 less three standard errors
