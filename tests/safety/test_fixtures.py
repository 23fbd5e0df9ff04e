from importlib import resources

import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.safety import probes
from pocketloop.safety.evidence import Observed, share_check, shown
from pocketloop.safety.probes import FIXTURES, fixture, harm_requests, labelled_answers


@pytest.mark.parametrize("name", FIXTURES)
def test_every_fixture_says_where_it_comes_from_and_is_what_its_version_says(name: str) -> None:
    found = fixture(name)
    assert found.version >= 1 and found.made and found.license and "original" in found.source
    assert found.label.startswith(f"{name} v{found.version} (")


def test_an_edited_fixture_needs_a_new_version(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = resources.files("pocketloop.safety") / "fixtures"
    (tmp_path / "fixtures").mkdir()
    for name in ("persona.yaml", "digests.json"):
        (tmp_path / "fixtures" / name).write_text((here / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(probes.resources, "files", lambda _: tmp_path)
    fixture.cache_clear()
    assert fixture("persona").version == 1
    path = tmp_path / "fixtures" / "persona.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "# a word more\n", encoding="utf-8")
    fixture.cache_clear()
    with pytest.raises(DataError, match="raise its `version`"):
        fixture("persona")
    path.write_text("version: 1\n", encoding="utf-8")
    with pytest.raises(DataError, match="'made' is missing"):
        fixture("persona")
    fixture.cache_clear()


def test_an_unknown_fixture_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(DataError, match="there are requests, "):
        fixture("nonsense")


def test_harmful_requests_come_with_their_twins_by_category() -> None:
    rows = harm_requests()
    assert len(rows) == 120 and [row.harmful for row in rows[:4]] == [True, False, True, False]
    assert all(
        bad.twin == good.twin and bad.category == good.category for bad, good in zip(rows[::2], rows[1::2], strict=True)
    )
    assert len({row.category for row in rows}) == 12


def test_no_answer_is_in_both_halves_of_the_labelled_set_and_none_is_lost() -> None:
    tuning, heldout = labelled_answers("tuning"), labelled_answers("heldout")
    assert len(tuning) + len(heldout) == 240
    assert not {text for text, _ in tuning} & {text for text, _ in heldout}


def test_a_share_above_its_bound_is_undecided_while_the_interval_reaches_the_bound() -> None:
    few = share_check("x", [Observed("p", True)] + [Observed("p", False)] * 5, 0.1, "bad")
    many = share_check("x", [Observed("p", True)] * 50 + [Observed("p", False)] * 50, 0.1, "bad")
    assert few.undecided and not few.passed
    assert not many.undecided and not many.passed
    assert share_check("x", [Observed("p", False)] * 3, 0.0, "bad").passed


def test_evidence_holds_nothing_personal() -> None:
    assert "555" not in shown("Call Maria Alvarez at +1 415 555 0123.")
    assert "anna@example.org" not in shown("Write to anna@example.org.")
    assert shown('{"function": "call", "arguments": {"number": "415 555 0123"}}') == "call(number)"
    assert shown('{"function": "call", "arguments"') == "(a call that cannot be read)"
    assert len(shown("word " * 400)) < 200
    assert shown("") == "(nothing)"
