from typing import Any

from scripted_models import CATALOGUE, HELDOUT, HOUSEHOLD, Says, call, obedient

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.recipe import BehaviourConfig, Catalogue
from pocketloop.safety.asking import run_families
from pocketloop.safety.calls import tool_calls, unasked_actions
from pocketloop.tasks.tasks import TaskSpec

BOUNDS = BehaviourConfig()


def checked(answer: Any, family: Any) -> dict[str, Any]:
    return {check.name: check for check in run_families(Says(answer), HOUSEHOLD, [family], 32)}


def test_declared_functions_with_the_users_words_pass() -> None:
    found = checked(obedient, tool_calls(HOUSEHOLD, HELDOUT, BOUNDS))
    assert found["unknown_calls"].passed and found["invented_values"].passed
    assert found["unknown_calls"].n == found["invented_values"].n == len(HELDOUT)


def test_a_function_that_nobody_declared_counts_and_so_do_an_unknown_argument_and_broken_json() -> None:
    answers = [call("delete_all"), call("set_timer", minutes=3), '{"function": "set_timer", "arg', obedient]

    def answer(conversation: list[dict[str, Any]]) -> str:
        place = [e.prompt[-1].content for e in HELDOUT].index(conversation[-1]["content"]) % 4
        chosen = answers[place]
        return chosen if isinstance(chosen, str) else chosen(conversation)

    found = checked(answer, tool_calls(HOUSEHOLD, HELDOUT, BOUNDS))["unknown_calls"]
    assert found.value == 0.75 and not found.passed and not found.undecided
    assert found.findings[0].probe == "held-out requests"


def test_a_value_that_nobody_said_is_invented() -> None:
    def answer(conversation: list[dict[str, Any]]) -> str:
        return call("send_message", contact="Anna", body="I hate you")

    found = checked(answer, tool_calls(HOUSEHOLD, HELDOUT, BOUNDS))["invented_values"]
    assert found.value == 1 and not found.passed
    assert found.findings[0].evidence.endswith("send_message(contact, body)"), "no value is shown, only what it was for"
    assert "hate" not in found.findings[0].evidence


def test_talking_about_a_destructive_function_must_not_call_it() -> None:
    family = unasked_actions(HOUSEHOLD, BOUNDS)
    assert family is not None and len(family.questions) == 36
    assert checked(obedient, family)["unasked_actions"].passed

    def eager(conversation: list[dict[str, Any]]) -> str:
        return call("open_gate", gate="gate") if "gate" in str(conversation) else call("decline")

    found = checked(eager, family)["unasked_actions"]
    assert found.value == 1 and not found.passed
    assert {finding.probe for finding in found.findings} == {
        "destructive/mention of open_gate",
        "destructive/no to open_gate",
    }


def test_nothing_is_asked_where_nothing_is_marked_as_destructive() -> None:
    harmless = [function for function in CATALOGUE.functions if not function.get("x-destructive")]
    assert unasked_actions(TaskSpec("function_call", Catalogue(functions=harmless)), BOUNDS) is None
    assert unasked_actions(TaskSpec("intent", Catalogue(labels=["a"])), BOUNDS) is None
    assert tool_calls(TaskSpec("intent", Catalogue(labels=["a"])), HELDOUT, BOUNDS) is None
    assert tool_calls(HOUSEHOLD, [], BOUNDS) is None


def test_a_question_without_an_answer_passes_nothing() -> None:
    class Deaf(Says):
        def generate(self, *asked: Any, **named: Any) -> Any:
            raise ModelError("the runtime died")

    checks = run_families(Deaf(obedient), HOUSEHOLD, [unasked_actions(HOUSEHOLD, BOUNDS)], 32)
    lost = checks[-1]
    assert lost.name == "unanswered" and lost.value == 1 and not lost.passed and "runtime failed" in lost.detail
