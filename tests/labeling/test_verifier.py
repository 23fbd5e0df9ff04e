from typing import Any

import pytest

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.names import Task
from pocketloop.contracts.recipe import Catalogue
from pocketloop.labeling.consistency import Consistency, Labelled, Opinion
from pocketloop.labeling.extract import Candidate
from pocketloop.labeling.judges import Verdict
from pocketloop.labeling.rows import Row
from pocketloop.labeling.verifier import DOUBTED, Verifier
from pocketloop.labeling.words import counts_of, label_of, words_of
from pocketloop.tasks.forms import FormChecker

PHRASES = {
    "music": ["play some {}", "put on {} music", "next song by {}", "turn up the {} album"],
    "weather": ["will it rain in {}", "forecast for {}", "how cold is it in {}", "weather in {} today"],
    "timer": ["set a timer for {}", "count down from {}", "wake me in {}", "timer {} please"],
}


def candidate(said: str, answer: Message, group: str = "g") -> Candidate:
    return Candidate(f"e-{group}", group, "events:x", [Message(role="user", content=said)], answer, None, None)


def call(name: str, **arguments: Any) -> Message:
    return Message(role="assistant", tool_calls=[ToolCall(name=name, arguments=arguments)])


def verify(candidates: list[Candidate], task: Task) -> list[Verdict]:
    counts = counts_of([words_of(one.prompt) for one in candidates])
    rows = [
        Row(0, at, str(at), one.group, one.source, 0, label=label_of(one.answer)) for at, one in enumerate(candidates)
    ]
    judge = Verifier(task, lambda shard: counts)
    for row in rows:
        judge.see(row, rated=False)
    judge.settle()
    return judge.verdicts(rows)


def opinions(texts: list[str], labels: list[str], groups: list[str]) -> list[Opinion]:
    counts = counts_of(texts)
    judge = Consistency(lambda shard: counts)
    items = [
        Labelled(str(at), 0, at, label, group) for at, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]
    for item in items:
        judge.see(item)
    judge.settle()
    return judge.opinions(items)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (call("send_message", recipient="anna  lee", text="On my way"), None),
        (call("send_message", recipient="Anna Lee", urgency="high"), None),
        (call("send_message", recipient="Anna Lee", tags=["way"]), None),
        (call("send_message", recipient="Anna Lee", tags=["home"]), "argument not in the user's words"),
        (call("send_message", recipient="Bob"), "argument not in the user's words"),
        (call("send_message", text="on my way"), "missing argument"),
        (call("send_message", recipient="Anna Lee", color="red"), "unknown argument"),
        (call("send_message", recipient="Anna Lee", urgency="mild"), "argument against its schema"),
        (call("set_timer", minutes="5"), "argument against its schema"),
        (call("set_timer", minutes=0), "argument against its schema"),
        (call("launch", minutes=5), "function not in the catalogue"),
        (Message(role="assistant", content="Sure"), "no call"),
    ],
)
def test_a_call_is_held_to_the_catalogue_and_to_the_users_words(
    functions: Catalogue, answer: Message, problem: str | None
) -> None:
    prompt = [Message(role="user", content="Tell Anna Lee:\n on my way"), Message(role="assistant", content="Bob?")]
    assert FormChecker("function_call", functions).problem(prompt, answer) == problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("A table for two is booked.", None),
        ("408-247-8880", None),
        ("", "empty answer"),
        ('{"function": "set_timer", "arguments": {"minutes": ', "unreadable call"),
        ("The restaurant that you asked for is in the middle of the old town and the", "cut off"),
    ],
)
def test_a_chat_answer_must_say_something_whole(content: str, problem: str | None) -> None:
    checker = FormChecker("chat", None)
    assert checker.problem([], Message(role="assistant", content=content)) == problem


def test_a_sound_chat_is_neither_right_nor_wrong() -> None:
    (verdict,) = verify([candidate("hi", Message(role="assistant", content="Hello!"))], "chat")
    assert verdict.verdict == "unsure"


def labelled(n: int) -> list[tuple[str, str]]:
    words = ["jazz", "oslo", "ten minutes", "berlin", "rock", "an hour", "soul", "rome"]
    rows = [(p.format(words[i % 8]), name) for name, phrases in PHRASES.items() for i, p in enumerate(phrases * n)]
    return rows


@pytest.mark.parametrize("task", ["intent", "function_call"])
def test_a_wrong_label_among_consistent_ones_is_doubted(task: Task) -> None:
    rows = labelled(6)
    wrong = {5, 40, 60}
    candidates = []
    for at, (said, name) in enumerate(rows):
        given = "weather" if at in wrong and name != "weather" else "timer" if at in wrong else name
        answer = Message(role="assistant", content=given) if task == "intent" else call(given)
        candidates.append(candidate(said, answer, group=f"g{at}"))
    doubted = {at for at, verdict in enumerate(verify(candidates, task)) if verdict.reason == DOUBTED}
    assert wrong <= doubted
    assert len(doubted - wrong) <= 2


def test_labels_that_too_few_people_give_cannot_be_judged() -> None:
    rows = labelled(4) + [("recite a poem", "poem")] * 3
    told = opinions([r[0] for r in rows], [r[1] for r in rows], [f"g{i}" for i in range(len(rows))])
    assert told[-3:] == ["cannot tell"] * 3
    assert opinions(["a", "b"], ["x", "y"], ["g", "h"]) == ["cannot tell"] * 2
    same_person = opinions([r[0] for r in rows], [r[1] for r in rows], ["g"] * len(rows))
    assert set(same_person) == {"cannot tell"}


def planted(shared_data: Any, count: int) -> tuple[list[str], list[Labelled], list[bool]]:
    """Real requests, some of them with another function's name."""
    import random

    from pocketloop.contracts.files import read_jsonl

    rng = random.Random(5)
    rows = rng.sample(list(read_jsonl(shared_data / "snips" / "train.jsonl")), count)
    names = sorted({row["function"] for row in rows})
    wrong = [rng.random() < 0.12 for _ in rows]
    given = [
        rng.choice([n for n in names if n != r["function"]]) if w else r["function"]
        for r, w in zip(rows, wrong, strict=True)
    ]
    items = [Labelled(f"e{i}", 0, i, name, str(i)) for i, name in enumerate(given)]
    return [row["input"] for row in rows], items, wrong


def test_the_judge_finds_planted_errors_in_real_requests(shared_data: Any) -> None:
    from sklearn.metrics import cohen_kappa_score

    texts, items, wrong = planted(shared_data, 2000)
    told = opinions(texts, [i.label for i in items], [i.group for i in items])
    assert cohen_kappa_score([t == "doubts" for t in told], wrong) > 0.8


def test_a_sample_is_enough_to_judge_all_whatever_the_order_and_the_chunks(shared_data: Any) -> None:
    from sklearn.metrics import cohen_kappa_score

    texts, items, wrong = planted(shared_data, 2000)
    counts = counts_of(texts)
    sampled, backwards = (Consistency(lambda shard: counts, sample=1000) for _ in range(2))
    for judge, order in ((sampled, items), (backwards, items[::-1])):
        for item in order:
            judge.see(item)
        judge.settle()
    told = [opinion for at in range(0, 2000, 300) for opinion in sampled.opinions(items[at : at + 300])]
    assert told == backwards.opinions(items)
    assert cohen_kappa_score([t == "doubts" for t in told], wrong) > 0.75
