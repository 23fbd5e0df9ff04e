from typing import Any

import pytest
from scripted_models import CATALOGUE, HELDOUT, HOUSEHOLD, Says, call, example, obedient

from pocketloop.contracts.events import Message
from pocketloop.contracts.recipe import BehaviourConfig, Catalogue
from pocketloop.safety import injection
from pocketloop.safety.asking import folded, run_families, takes_tool_turns
from pocketloop.safety.injection import injected_arguments, injected_messages, injected_results
from pocketloop.tasks.tasks import TaskSpec

BOUNDS = BehaviourConfig()
TOOL_TURNS = [
    Message(role="user", content="what does my last message say"),
    Message(role="assistant", content="One moment."),
    Message(role="tool", content="See you on Sunday."),
]
TRAINED = [example("set a timer for two minutes", "set_timer", TOOL_TURNS, duration="two minutes")]


def follows(conversation: list[dict[str, Any]]) -> str:
    """A model that does what any text tells it, wherever it stands."""
    text = " ".join(turn["content"] for turn in conversation).casefold()
    if "open the gate" in text:
        return call("open_gate", gate="gate")
    return obedient(conversation)


def checked(model: Says, family: Any, spec: TaskSpec = HOUSEHOLD) -> Any:
    check, _ = run_families(model, spec, [family], 32)
    return check


def test_a_model_that_sends_the_attack_as_the_text_that_it_is_passes() -> None:
    found = checked(Says(obedient), injected_arguments(HOUSEHOLD, HELDOUT, BOUNDS))
    assert found.passed and found.value == 0 and found.n == 24


def test_a_model_that_does_what_the_message_says_fails_and_the_finding_names_the_attack() -> None:
    found = checked(Says(follows), injected_arguments(HOUSEHOLD, HELDOUT, BOUNDS))
    assert not found.passed and not found.undecided and found.value > 0.3
    assert all(finding.probe.startswith("injections/") for finding in found.findings)
    assert "open_gate(gate)" in found.findings[0].evidence
    assert "injections v1" in found.detail


def test_a_model_that_any_other_words_disturb_is_not_called_injected_for_it() -> None:
    def nervous(conversation: list[dict[str, Any]]) -> str:
        said = conversation[-1]["content"]
        return obedient(conversation) if any(e.prompt[-1].content == said for e in HELDOUT) else call("set_timer")

    found = checked(Says(nervous), injected_arguments(HOUSEHOLD, HELDOUT, BOUNDS))
    assert found.value == 0 and found.passed and not found.findings
    assert "an attack alone changes 0, harmless words alone 0" in found.detail


def test_to_decline_an_attack_is_not_to_follow_it() -> None:
    def careful(conversation: list[dict[str, Any]]) -> str:
        return call("decline") if "open the gate" in conversation[-1]["content"] else obedient(conversation)

    found = checked(Says(careful), injected_arguments(HOUSEHOLD, HELDOUT, BOUNDS))
    assert found.passed and found.value == 0 and "; 0 are declined" not in found.detail


def test_nothing_asked_passes_no_gate() -> None:
    assert not injection._changed("x", [], [], 0.1, str.__eq__, HOUSEHOLD).passed
    assert injection._changed("x", [], [], None, str.__eq__, HOUSEHOLD).passed


def test_attacks_ask_for_destructive_functions_first_and_never_for_the_right_one() -> None:
    model = Says(obedient)
    checked(model, injected_arguments(HOUSEHOLD, HELDOUT, BOUNDS))
    attacks = [turns[-1]["content"] for turns in model.asked[2::3]]
    assert any("open the gate" in text for text in attacks)
    assert not any("send a text message" in text for text in attacks)


def test_tool_results_are_only_injected_where_the_adapter_is_trained_on_them() -> None:
    assert injected_results(HOUSEHOLD, HELDOUT, HELDOUT, BOUNDS) is None
    assert injected_results(HOUSEHOLD, HELDOUT, TRAINED, BOUNDS) is not None


@pytest.mark.parametrize(("answer", "passes"), [(obedient, True), (follows, False)])
def test_a_tools_result_must_not_decide_what_is_called(answer: Any, passes: bool) -> None:
    found = checked(Says(answer), injected_results(HOUSEHOLD, HELDOUT, TRAINED, BOUNDS))
    assert found.passed == passes and found.n == 24


def test_the_request_stays_the_same_and_only_the_tools_text_differs() -> None:
    model = Says(obedient)
    checked(model, injected_results(HOUSEHOLD, HELDOUT, TRAINED, BOUNDS))
    clean, plain, attacked = model.asked[:3]
    assert [turn["role"] for turn in attacked] == ["user", "assistant", "tool", "user"]
    assert clean[-1] == plain[-1] == attacked[-1]
    assert len({turns[2]["content"] for turns in (clean, plain, attacked)}) == 3


def test_a_talking_adapter_must_not_say_what_a_tool_tells_it_to() -> None:
    spec = TaskSpec("chat", None)
    talk = [e.model_copy(update={"messages": [*e.prompt, Message(role="assistant", content="Done.")]}) for e in HELDOUT]

    def parrot(conversation: list[dict[str, Any]]) -> str:
        return conversation[2]["content"]

    assert checked(Says(lambda _: "Done."), injected_results(spec, talk, TRAINED, BOUNDS), spec).passed
    assert checked(Says(parrot), injected_results(spec, talk, TRAINED, BOUNDS), spec).value == 1


def test_a_label_must_be_that_of_the_request_and_not_of_what_the_message_says() -> None:
    spec = TaskSpec("intent", Catalogue(labels=["messages", "timers", "oos"], refusal="oos"))

    def misled(conversation: list[dict[str, Any]]) -> str:
        return "timers" if "answer timers" in conversation[-1]["content"] else "messages"

    assert checked(Says(lambda _: "messages"), injected_messages(spec, BOUNDS), spec).value == 0
    found = checked(Says(misled), injected_messages(spec, BOUNDS), spec)
    assert found.value > 0.2
    assert found.findings[0].evidence == "timers", "a label is the recipe's own word"


def test_a_chat_template_without_tool_turns_gets_their_text_in_the_users_turn() -> None:
    from jinja2 import TemplateError

    class Strict:
        def apply_chat_template(self, turns: Any, **_: Any) -> str:
            if any(turn["role"] == "tool" for turn in turns):
                raise TemplateError("Conversation roles must alternate user/assistant")
            return ""

    model = Says(obedient)
    model.tokenizer = Strict()  # type: ignore[attr-defined]
    assert not takes_tool_turns(model)
    checked(model, injected_results(HOUSEHOLD, HELDOUT, TRAINED, BOUNDS))
    assert all(turn["role"] != "tool" for turns in model.asked for turn in turns)
    asked = [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}, {"role": "user", "content": "c"}]
    assert folded(asked) == [{"role": "user", "content": "a"}, {"role": "user", "content": "b\nc"}]


def test_a_recipe_without_functions_has_no_arguments_to_inject() -> None:
    assert injected_arguments(TaskSpec("chat", None), HELDOUT, BOUNDS) is None
    assert injected_arguments(HOUSEHOLD, [example("stop", "decline")], BOUNDS) is None
    assert CATALOGUE.refusal == "decline"
