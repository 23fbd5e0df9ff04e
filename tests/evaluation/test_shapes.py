"""Two shapes of assistant on the same messages."""

from pathlib import Path

import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Conversation, Message
from pocketloop.contracts.examples import EndsWithNumber, Example, SaysOneOf, make_example
from pocketloop.evaluation.shapes import OUT_OF_SCOPE, Said, Shapes, ShapesReport, compare_shapes
from pocketloop.evaluation.shapes_page import write_shapes_page

SHAPES = Shapes("universal", "gateway", {"math": "math", "wellness": "wellness"}, threshold=0.5)
SIZES = {"universal": 300, "gateway": 100, "math": 200, "wellness": 150}
SECRET = "zanzibar"


def example(text: str, answer: str, role: str = "") -> Example:
    check = EndsWithNumber(value=2) if role == "math" else SaysOneOf(any=["sad"])
    turns = [Message(role="user", content=f"{text} {SECRET}"), Message(role="assistant", content=answer)]
    return make_example("chat", turns, source="s", role=role, checks=[check])


SETS = {
    "math": [example(f"sum {n}", "1 + 1 = 2", "math") for n in range(20)],
    "wellness": [example(f"feel {n}", "You feel sad.", "wellness") for n in range(10)],
    OUT_OF_SCOPE: [example(f"other {n}", "", "") for n in range(5)],
}


def answer(adapter: str, conversation: Conversation, role: str) -> Said:
    """A gateway that takes `sum 1*` for wellness and is unsure of `feel 0`; a universal that forgets without a role."""
    text = conversation[-1]["content"]
    asks = "math" if text.startswith("sum") else "wellness" if text.startswith("feel") else OUT_OF_SCOPE
    if adapter == "gateway":
        named = "wellness" if text.startswith("sum 1") else asks
        return Said(named, 0.2 if text.startswith("feel 0") else 0.9, 0.010)
    skill = role if adapter == "universal" else adapter
    return Said({"math": "1 + 1 = 2", "wellness": "You feel sad."}.get(skill, "?"), 1.0, 0.020)


@pytest.fixture(scope="module")
def report() -> ShapesReport:
    return compare_shapes(SHAPES, SETS, answer, SIZES, 1000)


def test_a_message_for_the_wrong_specialist_is_answered_wrong_and_an_unsure_one_not_at_all(
    report: ShapesReport,
) -> None:
    hybrid = report.variants[0].agents
    wrong = 11  # sum 1, sum 10 to sum 19
    assert hybrid["math"].right.value == pytest.approx((20 - wrong) / 20) and hybrid["math"].passed_on == 0
    assert hybrid["wellness"].right.value == pytest.approx(0.9) and hybrid["wellness"].passed_on == pytest.approx(0.1)
    assert hybrid[OUT_OF_SCOPE].right.value == 1
    assert report.routed_right["math"].value == pytest.approx(9 / 20) and report.routed_right["wellness"].value == 1


def test_with_the_right_agent_both_are_right_and_without_a_role_the_universal_one_is_not(report: ShapesReport) -> None:
    found = {variant.variant: variant.overall.value for variant in report.variants}
    assert found["hybrid, right agent"] == found["universal, right role"] == 1
    assert found["universal, no role"] == 0
    assert found["hybrid"] == found["universal, role by gateway"] == pytest.approx(18 / 30)


def test_a_gateway_before_an_adapter_swaps_twice_a_message_and_one_adapter_once_in_all(report: ShapesReport) -> None:
    swaps = {
        variant.variant: variant.swaps * n for variant, n in zip(report.variants, (35, 30, 30, 35, 30), strict=True)
    }
    assert swaps["universal, right role"] == swaps["universal, no role"] == pytest.approx(1)
    assert 50 < swaps["hybrid"] <= 70 and 1 < swaps["hybrid, right agent"] <= 30
    assert report.variants[0].milliseconds == pytest.approx(30) and report.variants[2].milliseconds == pytest.approx(20)


def test_bytes_are_those_of_the_files_that_a_variant_ships(report: ShapesReport) -> None:
    assert [variant.shipped_bytes for variant in report.variants] == [450, 450, 300, 400, 300]
    assert [variant.update_bytes for variant in report.variants] == [200, 200, 300, 300, 300]


def test_differences_are_paired_by_message(report: ShapesReport) -> None:
    routing = {d.agent: d for d in report.differences if d.right == "universal, right role" and "gateway" in d.left}
    assert routing["all"].difference == pytest.approx(-12 / 30) and routing["all"].n == 30
    assert routing["all"].low < -12 / 30 < routing["all"].high < 0 and routing["all"].p < 0.001
    same = next(d for d in report.differences if d.left == "hybrid" and d.agent == "all")
    assert same.difference == 0 and same.low < 0 < same.high and same.p == 1


def test_neither_the_report_nor_the_page_holds_a_message(report: ShapesReport, tmp_path: Path) -> None:
    write_shapes_page(tmp_path / "shapes.html", report)
    page = (tmp_path / "shapes.html").read_text()
    assert "universal, role by gateway" in page and "<svg" in page
    assert SECRET not in page + report.model_dump_json()


def test_an_agent_that_one_shape_lacks_is_named_and_none_in_common_is_an_error() -> None:
    more = {**SETS, "persona": [example("who", "x")]}
    assert compare_shapes(SHAPES, more, answer, SIZES, 1).left_out == ["persona"]
    with pytest.raises(DataError, match="nothing to compare"):
        compare_shapes(SHAPES, {"persona": more["persona"]}, answer, SIZES, 1)
