import re

import pytest
from evaluation_samples import sample_findings, training
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pocketloop.evaluation.card import adapter_card
from pocketloop.evaluation.findings import Findings
from pocketloop.evaluation.forgetting import forgotten
from pocketloop.evaluation.report import render_report
from pocketloop.evaluation.suite import Outcome

Item = tuple[str, float, float]
"""Label, the champion's score and the candidate's."""


def outcomes(items: list[Item]) -> dict[str, list[Outcome]]:
    def of(model: int) -> list[Outcome]:
        return [
            Outcome(example_id=str(place), scores={"m": item[model]}, answer="", reference=item[0])
            for place, item in enumerate(items)
        ]

    return {"champion": of(1), "adapter": of(2)}


ITEMS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=60
)


@given(ITEMS)
def test_each_item_is_lost_gained_or_neither_and_labels_add_up(items: list[Item]) -> None:
    (found,) = forgotten({"test": outcomes(items)}, "m")
    total = found.total
    assert total.n == len(items)
    assert total.lost == sum(before > now for _, before, now in items)
    assert total.gained == sum(before < now for _, before, now in items)
    assert total.difference == pytest.approx((total.gained - total.lost) / total.n)
    assert total.low <= total.difference <= total.high
    for count in ("n", "lost", "gained"):
        assert getattr(total, count) == sum(getattr(label, count) for label in found.labels)
    differences = [label.difference for label in found.labels]
    assert differences == sorted(differences)
    if total.lost + total.gained:
        assert total.p == pytest.approx(binomtest(total.lost, total.lost + total.gained).pvalue)


def test_items_that_only_one_of_both_answered_do_not_count() -> None:
    measured = outcomes([("a", 1, 0), ("a", 1, 1), ("b", 0, 1)])
    measured["champion"].pop(0)
    (found,) = forgotten({"test": measured, "alone": {"adapter": measured["adapter"]}}, "m")
    assert (found.total.n, found.total.lost, found.total.gained) == (2, 0, 1)


def test_scores_between_right_and_wrong_are_compared_as_they_are() -> None:
    (found,) = forgotten({"test": outcomes([("a", 0.8, 0.6), ("a", 0.2, 0.5)])}, "m")
    assert (found.total.lost, found.total.gained) == (1, 1)
    assert found.total.difference == pytest.approx(0.05)


def continued() -> Findings:
    findings = sample_findings(280)
    changes = forgotten({"heldout": findings.outcomes}, "function_exact")
    started = training().model_copy(update={"start": "3", "replayed": 120})
    return sample_findings(280, training=started, forgetting=changes)


def test_report_and_card_say_what_was_forgotten_when_training_went_on_from_a_version() -> None:
    findings = continued()
    (changes,) = findings.forgetting
    assert changes.total.lost
    worst = changes.labels[0]
    html, card = render_report(findings), adapter_card(findings, "0" * 64)
    for text in (html, card):
        assert "What was forgotten" in text
        assert "version 3, with" in " ".join(text.split())
        assert f"{changes.total.difference:+.3f}" in text
    cells = " ".join(re.sub(r"<[^>]*>", " ", html).split())
    assert f"{worst.label} {worst.n} {worst.lost} " in cells
    assert f"{worst.label} {worst.lost}" in card


def test_a_candidate_that_started_from_the_base_has_no_such_section() -> None:
    findings = sample_findings(140)
    assert "What was forgotten" not in render_report(findings) + adapter_card(findings, "0" * 64)
