import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from release_samples import LABELS, stage_reports, write_sample

from pocketloop.contracts.home import Home
from pocketloop.contracts.reports import Agreed, Estimate, Guarded, LeakAudit, SelectReport, StageCount, TypeRecall
from pocketloop.data.release import parents, read_profile, read_release
from pocketloop.data.release_card import render_card, write_card
from pocketloop.data.release_figures import day_bars

_VOID = {"meta", "br", "link", "path", "use", "image", "rect", "circle", "line"}


class Page(HTMLParser):
    """The page's text, its tags that were never closed, and what it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.open, self.loads, self.links = "", list[str](), list[str](), list[str]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.text += " " if tag in ("td", "th", "dd") else ""
        if tag not in _VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "data") or (tag == "link" and name == "href"):
                self.loads.append(str(value))
            if tag == "a" and name == "href":
                self.links.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def card_of(home: Path, digest: str) -> Page:
    return Page((home / "releases" / digest / "card.html").read_text(encoding="utf-8"))


def test_the_card_is_one_whole_page_that_loads_nothing(tmp_path: Path, home: Path) -> None:
    made = write_sample(tmp_path, range(90))
    page = card_of(home, made.digest)
    assert page.open == []
    assert page.loads == []
    assert page.links == ["scrub.html"]
    for said in (
        made.digest[:16],
        "first release",
        "thumbs down",
        "ids are unique",
        "EMAIL_ADDRESS",
        "2026-01",
        *LABELS,
    ):
        assert said in page.text
    assert "What changed against the parent" not in page.text


def test_the_card_tells_what_changed_against_the_parent(tmp_path: Path, home: Path) -> None:
    first = write_sample(tmp_path, range(60))
    made = write_sample(
        tmp_path,
        range(30, 120),
        collect=stage_reports(90)["collect"].model_copy(update={"policies": ["2026-09"]}),
        drift=stage_reports(90, reference=first.digest)["drift"],
    )
    text = " ".join(card_of(home, made.digest).text.split())
    assert "What changed against the parent" in text
    assert "examples 60 30 30" in text
    assert "+ 2026-09 − 2026-01" in text
    assert "turns 0.010" in text
    assert f"Releases before this one: {first.digest[:16]}" in text


@pytest.mark.parametrize("broken", ["profile.json", "release.json"])
def test_a_card_stands_without_a_parent_that_can_be_read(tmp_path: Path, home: Path, broken: str) -> None:
    first = write_sample(tmp_path, range(60))
    second = write_sample(tmp_path, range(70))
    (home / "releases" / first.digest / broken).write_text('{"of": "another version"}')
    making = shutil.copytree(home / "releases" / second.digest, tmp_path / "making")
    write_card(Home(), second, making)
    assert "The parent could not be read" in (making / "card.html").read_text()
    shutil.rmtree(home / "releases" / first.digest)
    assert parents(Home(), write_sample(tmp_path, range(80))) == [second.digest, first.digest]


def test_no_word_of_a_person_reaches_the_card_or_the_reports(tmp_path: Path, home: Path) -> None:
    write_sample(tmp_path, range(60), text="my sister Zenobia lives at")
    made = write_sample(tmp_path, range(20, 90), text="my sister Zenobia lives at")
    folder = home / "releases" / made.digest
    assert any("Zenobia" in path.read_text() for path in (folder / "splits").rglob("*.jsonl"))
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name not in ("splits", "pairs", "rated"):
            assert b"Zenobia" not in path.read_bytes(), path.name


def test_the_card_shows_the_audit_the_agreement_and_the_guards_that_spoke(tmp_path: Path, home: Path) -> None:
    sure = Estimate(value=0.987, n=100, low=0.95, high=0.995)
    audit = LeakAudit(
        scrubber="x" * 64,
        rows=10_240,
        types=[TypeRecall(type="PERSON", labelled=100, whole=98, spurious=2, recall=sure, precision=sure)],
    )
    reports = stage_reports(60)
    agreed = [
        Agreed(rubric="right answer", source="thumbs", n=200, kappa=0.81, interval=(0.7, 0.9)),
        Agreed(rubric="right answer", source="mlflow", n=3, kappa=None, interval=None),
    ]
    made = write_sample(
        tmp_path,
        range(60),
        scrub=reports["scrub"].model_copy(update={"audit": audit, "caught": 2}),
        label=reports["label"].model_copy(update={"agreement": agreed}),
        select=SelectReport(
            count=StageCount(stage="select", entered=60, kept=60),
            contaminated={"heldout": 4},
            guarded=[Guarded(guard="flip", label="music", value=0.81, bound=0.5, examples=7, devices=2)],
            by_label=dict.fromkeys(LABELS, 20),
        ),
    )
    text = " ".join(card_of(home, made.digest).text.split())
    for said in (
        "2 leaks withheld",
        "10,240",
        "0.987",
        "0.81",
        "cannot be told",
        "4 of heldout",
        "flip music 0.81 0.50 7 2",
    ):
        assert said in text


def test_the_same_release_gives_the_same_card(tmp_path: Path, home: Path) -> None:
    made = write_sample(tmp_path, range(60))
    folder = home / "releases" / made.digest
    profile = read_profile(folder)
    assert render_card(read_release(folder), profile) == render_card(read_release(folder), profile)


@pytest.mark.parametrize(
    ("days", "width", "bars"),
    [
        ({"2026-11-01": 3}, 1, [3]),
        ({"2026-11-01": 1, "2026-11-03": 2}, 1, [1, 0, 2]),
        ({"2026-01-01": 1, "2026-01-07": 4, "2026-01-08": 2, "2026-07-01": 2}, 7, [5, 2, *[0] * 23, 2]),
        ({"2000-01-01": 1, "2026-11-01": 1}, 99, [1, *[0] * 98, 1]),
    ],
)
def test_events_of_many_days_are_drawn_in_bars_of_several(days: dict[str, int], width: int, bars: list[int]) -> None:
    assert day_bars(days) == (min(days), width, bars)
