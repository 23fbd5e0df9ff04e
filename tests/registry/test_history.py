from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_candidates import register_sample

from pocketloop.contracts.errors import RegistryError
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_ladder
from pocketloop.contracts.rollout import Decision, Rollout
from pocketloop.registry.description import join_description, page_of, split_description
from pocketloop.registry.history import set_champion, write_history
from pocketloop.registry.mlflow_store import champion, client, released_name
from pocketloop.registry.review import approve

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=300)


@given(TEXT.map(str.strip).filter(lambda text: "## Rollout" not in text), st.lists(st.from_regex(r"\A- \w{1,40}\Z")))
def test_a_description_comes_apart_as_it_was_joined(once: str, lines: list[str]) -> None:
    assert split_description(join_description(once, lines)) == (once, lines)


def test_the_newest_lines_stay_where_not_all_fit() -> None:
    lines = [f"- line {number}" for number in range(1000)]
    joined = join_description("# card", lines)
    assert len(joined) <= 5000
    once, kept = split_description(joined)
    assert (once, kept) == ("# card", lines[-len(kept) :])
    assert len(kept) > 300


def test_a_card_with_a_rollout_plan_is_no_history() -> None:
    assert split_description("# card\n\n## Rollout plan\n\ntext") == ("# card\n\n## Rollout plan\n\ntext", [])
    assert split_description(None) == ("", [])


@pytest.mark.slow
def test_tags_follow_the_record_and_the_champion_is_what_is_served(tmp_path: Path) -> None:
    store, at = Home(tmp_path / "home"), datetime(2026, 11, 20, tzinfo=UTC)
    found = register_sample(store, tmp_path / "one", "one")
    released = approve(store, "functions", found.version)
    decision = Decision(at=at, action="widen", why="good", reason="fine", rung=1, ppm_before=10_000, ppm_after=50_000)
    rollout = Rollout(
        rollout_id="functions-1",
        adapter="functions",
        base_digest="b" * 64,
        version=found.version,
        released=released,
        digest="c" * 64,
        previous=None,
        ladder=load_ladder("standard"),
        started=at,
        rung_started=at,
        decisions=[decision],
    )
    write_history(store, "functions", released, "widened", rollout, at)
    tags = client(store).get_model_version(released_name("functions"), released).tags
    assert {key: tags[f"rollout.{key}"] for key in ("state", "ppm", "decision")} == {
        "state": "running",
        "ppm": "50000",
        "decision": "widen: good",
    }
    assert champion(store, "functions") is None
    set_champion(store, "functions", released)
    assert champion(store, "functions") == found
    with pytest.raises(RegistryError, match="functions.released has no version 99"):
        write_history(store, "functions", "99", "lost")
    with pytest.raises(RegistryError, match="functions.released has no version 99"):
        set_champion(store, "functions", "99")


def test_a_long_card_leaves_room_for_the_history_and_says_where_the_rest_stands() -> None:
    body = "| words | " * 120 + "\n\n"
    names = ("Scores", "Slices", "Safety", "Data", "Gates")
    card = "# functions: pass\n\n" + "".join(f"## {name}\n\n{body}" for name in names)
    page = page_of(card)
    assert len(page) <= 3800
    assert all(f"## {name}\n" in page for name in names)
    assert page.count("In `card.md`") == 2, "no more is left out than has to be"
    assert page_of(page) == page and page_of("# short\n") == "# short\n"
    once, lines = split_description(join_description(page, ["- 2026-11-26 09:30 UTC: rolled back"]))
    assert (once, len(lines)) == (page.strip(), 1)
