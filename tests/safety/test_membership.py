from memory_samples import Known, chat

from pocketloop.safety.membership import LONGEST, Rows, draw, encode, gains, losses, membership_check
from pocketloop.tasks.tasks import TaskSpec

CHAT = TaskSpec("chat", None)
LEARNT = [chat(f"question {n}", f"answer number {n}, as it was given", f"g{n}") for n in range(60)]
OTHERS = [chat(f"another {n}", f"answer number {n}, as it was given", f"h{n}") for n in range(60)]


def judged(adapter: Known, bound: float | None = 0.7):  # type: ignore[no-untyped-def]
    members, others = encode(LEARNT, CHAT, adapter), encode(OTHERS, CHAT, adapter)
    base = Known()
    return membership_check(
        members,
        others,
        (losses(members, adapter), losses(others, adapter)),
        (losses(members, base), losses(others, base)),
        bound,
    )


def test_an_adapter_that_is_sure_of_its_training_examples_alone_fails() -> None:
    found = judged(Known(sure=[f"question {n}\n" for n in range(60)]))
    assert found.value == 1 and not found.passed and not found.undecided
    assert found.n == 120 and found.base is not None and 0.35 < found.base < 0.65


def test_an_adapter_that_is_as_sure_of_what_it_never_saw_passes() -> None:
    found = judged(Known(sure=["as it was given"]))
    assert found.passed and 0.4 < found.value < 0.65


def test_few_examples_leave_it_undecided() -> None:
    adapter = Known()
    members, others = encode(LEARNT[:6], CHAT, adapter), encode(OTHERS[:6], CHAT, adapter)
    known = (losses(members, adapter), losses(others, adapter))
    found = membership_check(members, others, known, known, 0.6)
    assert found.undecided and not found.passed


def test_without_held_out_examples_a_bound_is_not_met() -> None:
    nothing = Rows([], [], [])
    found = membership_check(encode(LEARNT, CHAT, Known()), nothing, ([], []), ([], []), 0.7)
    assert not found.passed and found.n == 0 and "raise data.test" in found.detail


def test_what_is_nearly_certain_still_spreads_and_the_base_is_taken_off() -> None:
    easy, hard = gains([0.001, 0.001], [0.01, 2.0])
    assert hard > easy > 0
    assert gains([1e-6], [1e-6]) == [0.0]


def test_what_is_too_long_is_left_out_and_draws_are_the_same() -> None:
    long = chat("word " * LONGEST, "x")
    assert len(encode([long, *LEARNT[:3]], CHAT, Known()).groups) == 3
    assert draw(LEARNT, limit=10) == draw(LEARNT, limit=10) and len(draw(LEARNT, limit=10)) == 10
