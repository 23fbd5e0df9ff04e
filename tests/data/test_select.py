import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_samples import EARLIER, call, intent, recipe, run_select, selected_examples, sentences, write_labelled

from pocketloop.contracts.collecting import ComputeConfig
from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.examples import Example, PreferencePair, RatedAnswer, make_example
from pocketloop.contracts.files import Folder, read_jsonl, sha256_file
from pocketloop.data.select.selecting import select

EVERYTHING: dict[str, Any] = {
    "near_duplicates": 0.8,
    "decontaminate": 4,
    "per_device": 6,
    "per_template": 3,
    "dominance": 0.5,
    "balance": 1.5,
}
EVALUATION = {"heldout": ["play some jazz", "what is the weather like in berlin tomorrow"]}


def test_with_every_guard_off_only_exact_duplicates_go_and_files_pass_unchanged(tmp_path: Path) -> None:
    examples = [intent(text, "x", f"g{n % 7}") for n, text in enumerate(sentences(50, 1))]
    report, kept, quarantined = run_select(tmp_path, examples, recipe(), parts=3)
    assert (kept, quarantined) == (examples, [])
    assert (report.count.entered, report.count.kept, report.by_label) == (50, 50, {"x": 50})
    for part in ("part-00000.jsonl", "part-00001.jsonl", "part-00002.jsonl"):
        before, after = (tmp_path / at / "examples" / part for at in ("labelled", "selected"))
        assert sha256_file(before) == sha256_file(after)


def test_what_is_left_out_is_counted_by_reason_and_quoted_nowhere(tmp_path: Path) -> None:
    examples = [intent("my secret plan", "x", "g1"), intent("my secret plan", "x", "g2"), intent("other", "x")]
    report, kept, quarantined = run_select(tmp_path, examples, recipe())
    assert report.count.left_out == {"duplicate conversation": 1}
    assert len(kept) == 2
    [row] = quarantined
    assert (row.stage, row.reason) == ("select", "duplicate conversation")
    assert row.event_id in {"e-g1-my secret plan", "e-g2-my secret plan"}
    assert "secret" not in row.detail + report.model_dump_json()


def test_caps_bound_one_device_and_one_phrasing_but_not_what_came_without_a_device(tmp_path: Path) -> None:
    eager = [intent(text, "x", "eager") for text in sentences(40, 2)]
    others = [intent(text, "x", f"g{n}") for n, text in enumerate(sentences(20, 3))]
    files = [intent(text, "x") for text in sentences(40, 4)]
    report, kept, _ = run_select(tmp_path, [*eager, *others, *files], recipe(per_device=5))
    assert Counter(e.group for e in kept)["eager"] == 5
    assert report.count.left_out == {"cap per device": 35}
    alarms = [call(f"wake me at {n}", "set_alarm", f"g{n}", hour=n) for n in range(30)]
    alarms += [call(f"remind <PERSON_{n:06x}> to sleep", "remind", who=f"<PERSON_{n:06x}>") for n in range(30)]
    report, kept, _ = run_select(tmp_path, alarms, recipe("function_call", per_template=10))
    assert report.by_label == {"set_alarm": 10, "remind": 10}
    assert report.count.left_out == {"cap per template": 40}


def test_a_phrasing_is_told_without_the_values_of_its_call_and_values_alone_are_none(tmp_path: Path) -> None:
    songs = [call(f"play {song} by someone", "play", "g", song=song) for song in sentences(8, 5, (1, 3))]
    bare = [call(song, "play", "g", song=song) for song in sentences(8, 6, (1, 3))]
    _, kept, _ = run_select(tmp_path, [*songs, *bare], recipe("function_call", per_template=2))
    assert len([e for e in kept if e.prompt[0].content.startswith("play")]) == 2
    assert len(kept) == 2 + 8


def test_balance_bounds_the_largest_label_by_the_median_one(tmp_path: Path) -> None:
    sizes = {"big": 60, "middle": 10, "small": 4}
    texts = iter(sentences(sum(sizes.values()), 7))
    examples = [intent(next(texts), label) for label, size in sizes.items() for _ in range(size)]
    report, _, _ = run_select(tmp_path, examples, recipe(balance=1.5))
    assert report.by_label == {"big": 15, "middle": 10, "small": 4}
    assert report.count.left_out == {"balance": 45}


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="select left nothing of 1 examples: 1 stands in evaluation set heldout"):
        run_select(tmp_path, [intent("Play, some JAZZ!", "x")], recipe(decontaminate=8), evaluation=EVALUATION)
    with pytest.raises(DataError, match="select left nothing of 0 examples"):
        run_select(tmp_path, [], recipe())


def messy(seed: int) -> list[Example]:
    """Duplicates, near duplicates, contaminated ones, an eager device and a crowded phrasing."""
    rng = random.Random(seed)
    texts = sentences(12, seed, (2, 6)) + EVALUATION["heldout"] + [f"turn it to {n}" for n in range(8)]
    texts += [f"{text} please" for text in texts[:6]] + ["call <PERSON_0a0a0a> now", "call <PERSON_0b0b0b> now"]
    devices = [None, "eager", "eager", *(f"g{n}" for n in range(30))]
    return [
        intent(rng.choice(texts), rng.choice(["x", "x", "y", "z"]), rng.choice(devices), f"e{n}") for n in range(70)
    ]


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_order_or_parts(seed: int, some: int, others: int, rng: random.Random) -> None:
    examples = messy(seed)
    shuffled = list(examples)
    rng.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as work:
        config = recipe(**EVERYTHING)
        first = run_select(Path(work), examples, config, parts=some, evaluation=EVALUATION)
        second = run_select(Path(work), shuffled, config, parts=others, evaluation=EVALUATION)
    assert first[0] == second[0]
    for one, other in ((first[1], second[1]), (first[2], second[2])):
        assert sorted(item.model_dump_json() for item in one) == sorted(item.model_dump_json() for item in other)
    report, kept, quarantined = first
    assert report.count.entered == len(examples) == len(kept) + len(quarantined)
    assert report.count.left_out == Counter(row.reason for row in quarantined)


@pytest.mark.slow
def test_the_choice_does_not_depend_on_the_number_of_tasks_or_processes(tmp_path: Path) -> None:
    examples = [example for seed in range(6) for example in messy(seed)]
    digests = set()
    for compute in (ComputeConfig(workers=1), ComputeConfig(workers=2)):
        run_select(tmp_path, examples, recipe(**EVERYTHING), parts=9, evaluation=EVALUATION, compute=compute)
        digests.add(Folder.of(tmp_path / "selected").digest)
    assert len(digests) == 1


def test_a_run_that_was_killed_goes_on_with_the_parts_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pocketloop.data.select import blocks

    examples = [example for seed in range(4) for example in messy(seed)]
    labelled = write_labelled(tmp_path / "labelled", examples, parts=4)
    noted: list[str] = []
    plain = blocks.NoteKeys._table

    def failing(self: Any, rows: Any) -> Any:
        noted.append(rows[0]["example_id"])
        if len(noted) == 3:
            raise KeyboardInterrupt
        return plain(self, rows)

    monkeypatch.setattr(blocks.NoteKeys, "_table", failing)

    def go(out: str, work: str) -> None:
        select(
            labelled,
            recipe(**EVERYTHING),
            tmp_path / out,
            evaluation={},
            previous=None,
            compute=ComputeConfig(workers=1),
            work=tmp_path / work,
        )

    with pytest.raises(KeyboardInterrupt):
        go("one", "work")
    go("one", "work")
    assert len(noted) == 5
    go("two", "clean")
    assert Folder.of(tmp_path / "one").digest == Folder.of(tmp_path / "two").digest


def feedback(said: str, group: str, rejected: str = "no", label: str = "x") -> tuple[PreferencePair, RatedAnswer]:
    prompt, answer = Message(role="user", content=said), Message(role="assistant", content=label)
    common: dict[str, Any] = {"task": "intent", "source": "events:s", "group": group, "event_ids": [f"e-{group}"]}
    turned_down = Message(role="assistant", content=rejected)
    return (
        PreferencePair(
            pair_id=f"{said}{group}{rejected}",
            prompt=[prompt],
            chosen=answer,
            rejected=turned_down,
            reason="correction",
            **common,
        ),
        RatedAnswer(rated_id=f"{said}{group}", messages=[prompt, answer], desirable=True, **common),
    )


def test_pairs_and_rated_answers_lose_copies_and_what_is_in_an_evaluation_set(tmp_path: Path) -> None:
    said = [feedback("turn it up", "g1"), feedback("turn it up", "g2"), feedback("turn it up", "g3", "other")]
    said += [feedback("play some jazz", "g4"), feedback("turn it down", "g5")]
    pairs, rated = [pair for pair, _ in said], [answer for _, answer in said]
    report, _, _ = run_select(
        tmp_path,
        [intent("hello", "x")],
        recipe(decontaminate=8),
        evaluation=EVALUATION,
        pairs=pairs,
        rated=rated,
    )
    kept = [PreferencePair.model_validate(row) for row in read_jsonl(tmp_path / "selected" / "pairs.jsonl")]
    assert [pair.prompt[0].content for pair in kept] == ["turn it up", "turn it up", "turn it down"]
    assert {pair.rejected.content for pair in kept} == {"no", "other"}
    answers = [RatedAnswer.model_validate(row) for row in read_jsonl(tmp_path / "selected" / "rated.jsonl")]
    assert [answer.messages[0].content for answer in answers] == ["turn it up", "turn it down"]
    assert report.feedback_left_out == {"duplicate conversation": 3, "stands in evaluation set heldout": 2}
    assert list(read_jsonl(tmp_path / "selected" / "quarantine.jsonl")) == [EARLIER.model_dump(mode="json")]


def test_a_chat_is_compared_with_what_it_answers(tmp_path: Path) -> None:
    def chat(said: str, answer: str) -> Example:
        return make_example(
            "chat",
            [Message(role="user", content=said), Message(role="assistant", content=answer)],
            source="s",
        )

    long_answer = "the capital of that country is a city on the river and it has been so for centuries"
    examples = [
        chat("what is the capital", long_answer),
        chat("What is the capital?", long_answer + "."),
        chat("what is the capital", "I do not know which country you mean, tell me more about it"),
    ]
    _, kept, quarantined = run_select(tmp_path, examples, recipe("chat", near_duplicates=0.9))
    assert [row.reason for row in quarantined] == ["near duplicate"]
    assert {e.answer.content[:5] for e in kept} == {"the c", "I do "}
    assert selected_examples(tmp_path / "selected") == kept


def test_what_a_chat_calls_is_compared_and_named_in_no_report(tmp_path: Path) -> None:
    def chat(said: str, name: str, answer: str = "") -> Example:
        calls = [ToolCall(name=name, arguments={"city": "Rome"})] if name else []
        turns = [Message(role="user", content=said), Message(role="assistant", content=answer, tool_calls=calls)]
        return make_example("chat", turns, source="s")

    examples = [chat("rooms in Rome", "FindSecret"), chat("Rooms in Rome!", "FindSecret")]
    examples += [chat("rooms in Rome", "BookSecret"), chat("rooms in Rome", "", "which day")]
    report, kept, _ = run_select(tmp_path, examples, recipe("chat", near_duplicates=0.9))
    assert len(kept) == 3
    assert report.by_label == {"call": 2, "text": 1}
    assert "Secret" not in report.model_dump_json()


def test_the_same_last_word_in_different_conversations_is_no_phrasing(tmp_path: Path) -> None:
    def chat(first: str) -> Example:
        turns = [("user", first), ("assistant", "shall I?"), ("user", "yes please"), ("assistant", "done")]
        return make_example("chat", [Message(role=role, content=said) for role, said in turns], source="s")

    examples = [chat(text) for text in sentences(6, 9)] + [chat(f"wake me at {n}") for n in range(6)]
    report, _, _ = run_select(tmp_path, examples, recipe("chat", per_template=2))
    assert report.count.left_out == {"cap per template": 4}
