"""An adapter that answers as several agents: the role's text stands before the conversation."""

import pytest

from pocketloop.contracts.errors import ConfigError, DataError
from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, make_example
from pocketloop.contracts.loading import load_recipe
from pocketloop.contracts.recipe import Recipe
from pocketloop.tasks.tasks import TaskSpec

RECIPE = """
adapter: universal
task: chat
base: tiny
data:
  sources:
    - {kind: examples, uri: "demo://math?n=10", role: math}
prompt:
  system: You are an assistant.
  roles: {math: "[AGENT:math] You add numbers."}
"""
TURNS = [Message(role="user", content="1 + 1"), Message(role="assistant", content="1 + 1 = 2")]


def test_the_roles_text_is_the_system_text_and_no_role_has_the_tasks(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "universal.yaml"
    path.write_text(RECIPE)
    task = TaskSpec.of(load_recipe(str(path)), None)
    assert task.conversation(TURNS, "math")[0] == {"role": "system", "content": "[AGENT:math] You add numbers."}
    assert task.conversation(TURNS)[0] == {"role": "system", "content": "You are an assistant."}


def test_a_system_turn_of_the_examples_own_follows_the_roles_text_in_one_turn() -> None:
    task = TaskSpec("chat", None, roles={"persona": "[AGENT:persona]"})
    said = task.conversation([Message(role="system", content="Your name is Nova."), *TURNS], "persona")
    assert [turn["role"] for turn in said] == ["system", "user", "assistant"]
    assert said[0]["content"] == "[AGENT:persona]\nYour name is Nova."


def test_a_role_that_the_recipe_does_not_define_is_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "universal.yaml"
    path.write_text(RECIPE.replace("role: math", "role: maths"))
    with pytest.raises(
        ConfigError, match=r"yaml:7: `data\.sources\.0\.role`: 'maths' is not under prompt\.roles .*math"
    ):
        load_recipe(str(path))
    with pytest.raises(DataError, match="the role 'cook'"):
        TaskSpec("chat", None, roles={"math": "m"}).conversation(TURNS, "cook")


def test_a_stages_view_of_a_recipe_may_leave_the_roles_texts_out(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "universal.yaml"
    path.write_text(RECIPE)
    view = load_recipe(str(path)).view("select")
    assert Recipe.model_validate(view.model_dump()).data.sources[0].role == "math"


def test_an_example_written_before_there_were_roles_still_loads_with_its_id() -> None:
    example = make_example("chat", TURNS, source="s")
    old = example.model_dump(exclude={"role", "checks"})
    assert Example.model_validate(old) == example


def test_the_same_words_in_another_role_are_another_example() -> None:
    example = make_example("chat", TURNS, source="s")
    moved = example.in_role("math")
    assert moved.role == "math" and moved.example_id != example.example_id and moved.group == moved.example_id
    assert make_example("chat", TURNS, source="s", group="device").in_role("math").group == "device"
