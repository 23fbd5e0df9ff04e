from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, make_example
from pocketloop.training.mixing import balanced_roles, count_roles, replayed

SIZES = st.dictionaries(st.sampled_from(["", "wellness", "math", "logistics"]), st.integers(1, 12), min_size=1)


def said(name: str, role: str = "") -> Example:
    messages = [Message(role="user", content=name), Message(role="assistant", content=f"answer to {name}")]
    return make_example("chat", messages, source="test", role=role)


def of_sizes(sizes: dict[str, int]) -> list[Example]:
    return [said(f"{role} {n}", role) for role, size in sizes.items() for n in range(size)]


def role_of(example: Example) -> str:
    return example.role


@given(SIZES, st.integers(0, 5))
def test_every_role_becomes_as_frequent_as_the_most_frequent_and_loses_nothing(
    sizes: dict[str, int], seed: int
) -> None:
    mixed = balanced_roles(of_sizes(sizes), seed)
    assert count_roles(mixed) == dict.fromkeys(count_roles(mixed), max(sizes.values()))
    for role, size in sizes.items():
        times = Counter(example.example_id for example in mixed if example.role == role)
        assert len(times) == size
        assert max(times.values()) - min(times.values()) <= 1


@given(SIZES, st.integers(0, 5), st.randoms())
def test_the_mix_depends_on_the_seed_and_not_on_the_order(sizes: dict[str, int], seed: int, random: Random) -> None:
    examples = of_sizes(sizes)
    shuffled = random.sample(examples, len(examples))
    assert balanced_roles(examples, seed) == balanced_roles(shuffled, seed)
    assert replayed(5, examples, 0.5, role_of, seed) == replayed(5, shuffled, 0.5, role_of, seed)


def test_another_seed_repeats_other_examples() -> None:
    examples = of_sizes({"wellness": 20, "math": 30})
    mixes = {tuple(example.example_id for example in balanced_roles(examples, seed)) for seed in range(4)}
    assert len(mixes) == 4


def test_nothing_stays_nothing() -> None:
    assert balanced_roles([], 0) == []
    assert replayed(10, [], 0.5, role_of, 0) == []


@given(SIZES, st.integers(0, 60), st.floats(0, 0.9))
def test_replay_is_a_share_of_what_is_learnt_from_as_far_as_enough_was_seen(
    sizes: dict[str, int], new: int, share: float
) -> None:
    examples = of_sizes(sizes)
    old = replayed(new, examples, share, role_of, 1)
    assert len({example.example_id for example in old}) == len(old)
    if len(old) < len(examples):
        assert abs(len(old) - share * (new + len(old))) <= 1


@given(SIZES, st.integers(0, 60))
def test_replay_takes_as_many_of_each_label_as_it_can(sizes: dict[str, int], new: int) -> None:
    drawn = Counter(example.role for example in replayed(new, of_sizes(sizes), 0.5, role_of, 1))
    for role, size in sizes.items():
        if drawn[role] < size:  # it was not exhausted, so no other label has more than one more
            assert max(drawn.values(), default=0) <= drawn[role] + 1
