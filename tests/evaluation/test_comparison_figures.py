import re

from pocketloop.contracts.reports import Measured, SliceVerdict
from pocketloop.evaluation.plots import differences_figure, paired_figure


def found(observed: float, low: float, high: float, **counts: int) -> Measured:
    return Measured(observed=observed, low=low, high=high, **({"n": 100} | counts))


def said(figure: str) -> str:
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", figure))


def test_a_paired_comparison_accounts_for_every_item() -> None:
    figure = said(paired_figure(found(0.1, 0.02, 0.18, wins=20, losses=10), 50, "champion"))
    assert "both right: 50" in figure
    assert "only the candidate: 20" in figure
    assert "only the champion: 10" in figure
    assert "neither: 20" in figure


def test_differences_stand_row_by_row_with_their_numbers_of_items() -> None:
    slices = [SliceVerdict(name="tool=set_timer", verdict="fail", measured=found(-0.5, -0.7, -0.3, n=12))]
    figure = said(differences_figure(found(0.1, 0.02, 0.18), slices, 0.03, "champion"))
    assert "all items (n = 100)" in " ".join(figure.split())
    assert "tool=set_timer (n = 12)" in " ".join(figure.split())
    assert "the margin of 0.03" in figure


def test_what_is_shown_to_be_worse_than_allowed_is_red_and_what_cannot_be_told_is_not() -> None:
    def drawn(low: float, high: float) -> bool:
        return "#b91c1c" in differences_figure(found((low + high) / 2, low, high), [], 0.03, "champion")

    assert drawn(-0.5, -0.1)
    assert not drawn(-0.5, 0.1)
    assert not drawn(0.0, 0.1)
