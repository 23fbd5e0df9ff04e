"""Write the items of `configs/suites/everyday*.jsonl`: small generated questions with one right answer, by seed.

They are our own and say nothing about any benchmark. They are there so that `pocketloop evaluate suite` has something
to run on a machine without a network, and show what a local task file looks like.
"""

import json
import random
from pathlib import Path

SUITES = Path(__file__).resolve().parents[1] / "configs" / "suites"
NAMES = ["Ana", "Bo", "Chidi", "Dara", "Elif", "Finn", "Gita", "Hugo", "Ines", "Jun", "Kofi", "Lena"]
ORDERS = [("older", "younger"), ("taller", "shorter"), ("faster", "slower"), ("earlier", "later")]
THINGS = ["milk", "a blue scarf", "two tickets", "the garden gate", "oat flakes", "a birthday card", "the spare key"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def main() -> None:
    """Write both files."""
    rng = random.Random(11)
    choices = [make(rng) for make in (_order, _day, _count) for _ in range(50)]
    rng.shuffle(choices)  # so that the first few are a fair part
    _write("everyday.jsonl", choices)
    _write("everyday-copy.jsonl", [_copy(rng) for _ in range(50)])


def _order(rng: random.Random) -> dict[str, object]:
    first, second = rng.sample(NAMES, 2)
    more, less = rng.choice(ORDERS)
    asked, right = rng.choice([(more, first), (less, second)])
    return _question(rng, f"{first} is {more} than {second}. Who is {asked}?", right, [first, second])


def _day(rng: random.Random) -> dict[str, object]:
    at = rng.randrange(7)
    word, step = rng.choice([("after", 1), ("before", -1)])
    right = DAYS[(at + step) % 7]
    wrong = rng.sample([day for day in DAYS if day not in (right, DAYS[at])], 3)
    return _question(rng, f"Which day comes right {word} {DAYS[at]}?", right, [right, *wrong])


def _count(rng: random.Random) -> dict[str, object]:
    have, more = rng.randint(1, 9), rng.randint(1, 9)
    right = have + more
    wrong = rng.sample([n for n in range(2, 19) if n != right], 3)
    asked = f"{rng.choice(NAMES)} has {have} stamps and gets {more} more. How many are there now?"
    return _question(rng, asked, str(right), [str(right), *map(str, wrong)])


def _question(rng: random.Random, asked: str, right: str, choices: list[str]) -> dict[str, object]:
    rng.shuffle(choices)
    return {"question": asked, "choices": choices, "answer": choices.index(right)}


def _copy(rng: random.Random) -> dict[str, object]:
    thing, name = rng.choice(THINGS), rng.choice(NAMES)
    text = f"{name} asks for {thing} on {rng.choice(DAYS)}"
    return {"text": text, "answer": text}


def _write(name: str, rows: list[dict[str, object]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (SUITES / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
