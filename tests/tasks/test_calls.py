"""How right function calls are: against brute force, and case by case."""

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.examples import AcceptedCall, Example, FunctionRow, example_from_row, make_example
from pocketloop.contracts.recipe import Catalogue
from pocketloop.tasks.calls import CallScore, Schemas, accepted_calls, same_value, score_calls

EVENT = {
    "name": "book",
    "parameters": {
        "type": "object",
        "properties": {
            "day": {"type": "string"},
            "seats": {"type": "integer", "minimum": 1},
            "area": {"type": "string", "enum": ["inside", "garden"], "default": "inside"},
            "guest": {"type": "string"},
        },
        "required": ["day"],
    },
}
SCHEMAS = Schemas(Catalogue(functions=[EVENT, {"name": "ping"}, {"name": "free", "parameters": {"type": "object"}}]))
ANY = Schemas(None)


def call(name: str = "book", **arguments: Any) -> ToolCall:
    return ToolCall(name=name, arguments=arguments)


def example(*calls: ToolCall, accepts: list[AcceptedCall] | None = None, said: str = "Book it.") -> Example:
    turns = [Message(role="user", content=said), Message(role="assistant", tool_calls=list(calls))]
    return make_example("function_call", turns, source="t", accepts=accepts)


def score(said: list[ToolCall], wanted: Example, schemas: Schemas = SCHEMAS) -> CallScore:
    return score_calls(said, wanted, schemas)


names = st.sampled_from(["a", "b", "c"])
values = st.sampled_from([1, 2, "x", "y"])
said_calls = st.lists(
    st.builds(ToolCall, name=st.sampled_from("fg"), arguments=st.dictionaries(names, values, max_size=3)), max_size=4
)


@st.composite
def wanted_calls(draw: st.DrawFn) -> AcceptedCall:
    arguments = draw(st.dictionaries(names, st.lists(values, min_size=1, max_size=3, unique=True), max_size=3))
    optional = draw(st.lists(st.sampled_from(sorted(arguments)), unique=True)) if arguments else []
    return AcceptedCall(name=draw(st.sampled_from("fg")), arguments=arguments, optional=optional)


def accepting(wanted: list[AcceptedCall]) -> Example:
    calls = [ToolCall(name=one.name, arguments={k: v[0] for k, v in one.arguments.items()}) for one in wanted]
    return example(*calls, accepts=wanted) if wanted else example(*calls)


def fits(said: ToolCall, wanted: AcceptedCall) -> bool:
    return (
        said.name == wanted.name
        and all(any(v is w or v == w for w in wanted.arguments.get(k, [])) for k, v in said.arguments.items())
        and all(k in said.arguments or k in wanted.optional for k in wanted.arguments)
    )


@settings(max_examples=50)
@given(said_calls, st.lists(wanted_calls(), max_size=4))
def test_calls_are_right_exactly_when_some_order_of_them_fits_one_by_one(
    said: list[ToolCall], wanted: list[AcceptedCall]
) -> None:
    brute = len(said) == len(wanted) and any(all(map(fits, order, wanted)) for order in permutations(said, len(wanted)))
    assert score(said, accepting(wanted), ANY).right == brute


@settings(max_examples=50)
@given(said_calls, st.lists(wanted_calls(), max_size=3))
def test_no_pairing_has_more_right_arguments_where_no_whole_call_is_right(
    said: list[ToolCall], wanted: list[AcceptedCall]
) -> None:
    found = score(said, accepting(wanted), ANY)
    assert 0 <= found.said_right <= found.said == sum(len(one.arguments) for one in said)
    assert 0 <= found.wanted_right <= found.wanted
    if any(fits(one, other) for one in said for other in wanted):
        return
    short, long = (said, wanted) if len(said) <= len(wanted) else (wanted, said)

    def right(one: Any, other: Any) -> int:
        one, other = (one, other) if isinstance(one, ToolCall) else (other, one)
        return (one.name == other.name) * sum(v in other.arguments.get(k, []) for k, v in one.arguments.items())

    best = max(sum(map(right, short, order)) for order in permutations(long, len(short)))
    assert found.said_right == best


@settings(max_examples=50)
@given(said_calls, st.randoms())
def test_what_is_asked_for_is_right_in_any_order_with_every_argument_counted(said: list[ToolCall], random: Any) -> None:
    shuffled = list(said)
    random.shuffle(shuffled)
    found = score(shuffled, example(*said), ANY)
    assert found.right
    assert found.said == found.said_right == found.wanted == found.wanted_right


@settings(max_examples=50)
@given(said_calls.filter(bool), st.lists(wanted_calls(), max_size=3), st.integers(0, 9))
def test_one_more_call_is_never_more_right(said: list[ToolCall], wanted: list[AcceptedCall], at: int) -> None:
    whole = accepting(wanted)
    assert not (score(said, whole, ANY).right and score([*said, said[at % len(said)]], whole, ANY).right)


def test_a_greedy_pairing_would_find_the_wrong_partner() -> None:
    either = AcceptedCall(name="book", arguments={"day": ["Monday", "Tuesday"]})
    monday = AcceptedCall(name="book", arguments={"day": ["Monday"]})
    asked = accepting([either, monday])
    assert score([call(day="Monday"), call(day="Tuesday")], asked).right
    assert score([call(day="Tuesday"), call(day="Monday")], asked).right
    assert not score([call(day="Tuesday"), call(day="Tuesday")], asked).right


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (call(day="Monday", seats=2), None),
        (call(day="Monday", seats=2.0), None),
        (call(day="Monday", seats="2"), "argument against its schema"),
        (call(day="Monday", seats=True), "argument against its schema"),
        (call(day="Monday", seats=0), "argument against its schema"),
        (call(day="Monday", area="roof"), "argument against its schema"),
        (call(seats=2), "missing argument"),
        (call(day="Monday", price=3), "unknown argument"),
        (call("cook", dish="soup"), "function not in the catalogue"),
        (call("ping"), None),
        (call("ping", host="x"), "unknown argument"),
        (call("free", anything=[{"goes": 1}]), None),
    ],
)
def test_the_form_of_a_call_is_held_against_its_schema(said: ToolCall, problem: str | None) -> None:
    assert SCHEMAS.problem(said) == problem
    assert ANY.problem(said) is None


def test_a_call_of_the_right_values_in_the_wrong_form_is_not_right_though_its_arguments_are() -> None:
    found = score([call(day="Monday", price=3)], example(call(day="Monday", price=3)))
    assert not found.right and not found.valid
    assert (found.said_right, found.wanted_right) == (2, 2)


def test_an_argument_that_may_be_left_out_may_be_given_but_not_wrongly() -> None:
    accepts = [AcceptedCall(name="book", arguments={"day": ["Monday"], "guest": ["Ana"]}, optional=["guest"])]
    asked = example(call(day="Monday", guest="Ana"), accepts=accepts)
    assert score([call(day="Monday")], asked).right
    assert score([call(day="Monday", guest="ana")], asked).right
    wrong = score([call(day="Monday", guest="Bo")], asked)
    assert not wrong.right
    assert (wrong.said, wrong.said_right, wrong.wanted, wrong.wanted_right) == (2, 1, 1, 1)


def test_a_default_of_the_schema_may_be_said_or_left_out() -> None:
    assert score([call(day="Monday", area="inside")], example(call(day="Monday"))).right
    assert score([call(day="Monday")], example(call(day="Monday", area="inside"))).right
    assert not score([call(day="Monday", area="garden")], example(call(day="Monday"))).right
    assert not score([call(day="Monday")], example(call(day="Monday", area="garden"))).right


def test_missing_and_made_up_arguments_are_counted_apart() -> None:
    asked = example(call(day="Monday", seats=4, guest="Ana"))
    found = score([call(day="monday", seats=5)], asked)
    assert (found.said, found.said_right, found.wanted, found.wanted_right) == (2, 1, 3, 1)
    assert score([], asked) == CallScore(False, False, 0, 0, 3, 0, 0, 0)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("Oat milk", " oat  milk.", True),
        ("Ana’s", "ana's", True),
        ("oat milk", "oatmilk", False),
        ("1.5", "15", False),
        ("10-11", "1011", False),
        (1, 1.0, True),
        (1, "1", False),
        (1, True, False),
        ([1, 2], [2, 1], False),
        ({"a": ["X"]}, {"a": ["x"]}, True),
        (None, "", False),
        ("?", "!", False),
    ],
)
def test_values_are_compared_as_a_person_would(left: Any, right: Any, same: bool) -> None:
    assert same_value(left, right) is same_value(right, left) is same


def test_a_value_that_only_an_earlier_turn_holds_is_carried() -> None:
    turns = [
        Message(role="user", content="Find me a table at Sipan."),
        Message(role="assistant", tool_calls=[call("find", place="Sipan")]),
        Message(role="tool", content='{"free": ["Monday"], "code": 4711}'),
        Message(role="assistant", content="Monday is free. For how many?"),
        Message(role="user", content="For 4, please."),
        Message(role="assistant", tool_calls=[call("book", place="Sipan", day="Monday", seats=4)]),
    ]
    asked = make_example("function_call", turns, source="t")
    found = score([call("book", place="Sipan", day="Tuesday", seats=4)], asked, ANY)
    assert (found.carried, found.carried_right) == (2, 1)
    assert score([], asked, ANY).carried_right == 0
    assert score([call("book", place="Sipan", day="Monday", seats=4)], asked, ANY).carried_right == 2


def test_a_row_says_what_else_is_right() -> None:
    row = FunctionRow(
        input="x", function="book", arguments={"day": "Monday"}, acceptable={"day": ["Mon"], "guest": ["Ana"]}
    )
    (accepted,) = accepted_calls(example_from_row(row, source="t"))
    assert accepted == AcceptedCall(
        name="book", arguments={"day": ["Monday", "Mon"], "guest": ["Ana"]}, optional=["guest"]
    )
    plain = example_from_row(FunctionRow(input="x", function="book", arguments={"day": "Monday"}), source="t")
    assert plain.accepts == [] and accepted_calls(plain)[0].arguments == {"day": ["Monday"]}


def test_what_an_example_accepts_must_be_its_own_calls() -> None:
    with pytest.raises(ValidationError, match="must name the calls of the answer"):
        example(call(day="Monday"), accepts=[AcceptedCall(name="cancel")])
    with pytest.raises(ValidationError, match="has no values in `arguments`"):
        AcceptedCall(name="book", optional=["day"])
    with pytest.raises(ValidationError, match="no value is right for argument 'day'"):
        AcceptedCall(name="book", arguments={"day": []})
