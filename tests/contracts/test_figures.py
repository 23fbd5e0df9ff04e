from xml.etree import ElementTree

import pytest

from pocketloop.contracts.figures import new_figure, plain, svg, titled


def drawing() -> str:
    figure = new_figure(4.0, 2.0)
    axes = figure.add_subplot()
    axes.plot([1, 2], [3, 4])
    plain(axes, grid="y")
    return svg(figure)


def test_a_titled_figure_is_one_valid_picture_on_a_white_sheet() -> None:
    sheet = ElementTree.fromstring(titled(drawing(), "Wins < losses & more"))
    kinds = [child.tag.split("}")[1] for child in sheet]
    assert kinds == ["title", "rect", "text", "svg"]
    assert (sheet[1].get("fill"), sheet[2].text) == ("#ffffff", "Wins < losses & more")
    placed = sheet[3]
    assert placed.get("viewBox") == f"0 0 {placed.get('width')} {placed.get('height')}"
    assert float(sheet.get("height", 0)) > float(placed.get("height", 0)) + float(placed.get("y", 0))


def test_a_long_title_makes_the_sheet_wider() -> None:
    short, long = (ElementTree.fromstring(titled(drawing(), "word " * n)) for n in (3, 40))
    assert float(long.get("width", 0)) > float(short.get("width", 0))


def test_the_same_figure_and_title_give_the_same_bytes() -> None:
    assert titled(drawing(), "a") == titled(drawing(), "a")


@pytest.mark.parametrize("text", ["", "<html></html>", "<svg></svg>"])
def test_what_is_no_figure_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the text of a figure"):
        titled(text, "a")
