from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.errors import ConfigError

pytestmark = pytest.mark.slow

STACK = """\
name: test-stack
components:
  orchestrator: {flavor: local}
  artifact_store: {flavor: local}
  experiment_tracker: {flavor: mlflow, configuration: {tracking_uri: "sqlite:///%s"}}
"""
SERVED = """\
name: served
components:
  orchestrator: {flavor: local}
  artifact_store: {flavor: local}
  experiment_tracker:
    flavor: mlflow
    configuration: {tracking_uri: "http://127.0.0.1:9", tracking_username: pipeline, tracking_password: %s}
"""


def what(plan: Any) -> dict[str, str]:
    return {part.type: part.what for part in plan.components}


def test_applying_a_stack_twice_changes_nothing_and_a_changed_file_updates_it(zenml_home: Path) -> None:
    from zenml.client import Client

    from stacks.apply import apply_stack

    file = zenml_home / "stack.yaml"
    file.write_text(STACK % "one.db")
    first = apply_stack(file)
    assert set(what(first).values()) == {"created"}
    assert first.stack == "created"
    second = apply_stack(file)
    assert set(what(second).values()) == {"unchanged"}
    assert not second.changed
    file.write_text(STACK % "two.db")
    third = apply_stack(file)
    assert what(third)["experiment_tracker"] == "updated"
    change = third.components[2].changes[0]
    assert (change.key, change.old, change.new) == ("tracking_uri", "sqlite:///one.db", "sqlite:///two.db")
    assert Client().active_stack_model.name == "test-stack"


def test_a_diff_tells_what_apply_then_does_and_is_empty_after_it(zenml_home: Path) -> None:
    from zenml.client import Client

    from stacks.apply import apply_stack
    from stacks.config import load_stack
    from stacks.plan import plan_stack

    file = zenml_home / "told.yaml"
    for text in (STACK % "one.db", STACK % "three.db", SERVED % "first"):
        file.write_text(text.replace("test-stack", "told").replace("served", "told"))
        told = plan_stack(Client(), file, load_stack(file))
        assert told.changed
        assert told == plan_stack(Client(), file, load_stack(file))  # telling changes nothing
        assert apply_stack(file) == told
        assert not plan_stack(Client(), file, load_stack(file)).changed


def test_keys_and_components_that_are_gone_from_the_file_go_from_zenml(zenml_home: Path) -> None:
    from zenml.client import Client

    from stacks.apply import apply_stack

    file = zenml_home / "less.yaml"
    file.write_text((SERVED % "first").replace("served", "less"))
    apply_stack(file)
    file.write_text(STACK.replace("test-stack", "less") % "one.db")
    gone = {change.key for change in apply_stack(file).components[2].changes if change.new is None}
    assert gone == {"tracking_username", "tracking_password"}
    held = Client().get_stack_component("experiment_tracker", "less-experiment_tracker").configuration
    assert held == {"tracking_uri": "sqlite:///one.db"}
    file.write_text("".join(STACK.replace("test-stack", "less").splitlines(keepends=True)[:4]))
    assert apply_stack(file).removed == ["experiment_tracker"]
    assert {kind.value for kind in Client().get_stack("less").components} == {"orchestrator", "artifact_store"}
    assert not apply_stack(file).changed


def test_what_a_secret_holds_is_never_told(zenml_home: Path) -> None:
    from stacks.apply import apply_stack

    file = zenml_home / "served.yaml"
    file.write_text(SERVED % "first-word")
    created = apply_stack(file)
    file.write_text(SERVED % "second-word")
    updated = apply_stack(file)
    assert [(change.key, change.old, change.new) for change in updated.components[2].changes] == [
        ("tracking_password", "(hidden)", "(hidden)")
    ]
    for plan in (created, updated):
        assert "-word" not in plan.model_dump_json()
        assert "-word" not in repr(plan)


def test_a_flavor_that_changed_is_refused_with_what_to_do(zenml_home: Path) -> None:
    from stacks.apply import apply_stack

    file = zenml_home / "flavor.yaml"
    file.write_text(STACK.replace("test-stack", "flavored") % "one.db")
    apply_stack(file)
    file.write_text(file.read_text().replace("orchestrator: {flavor: local}", "orchestrator: {flavor: local_docker}"))
    with pytest.raises(ConfigError, match="flavor local, the file says local_docker.*zenml stack delete flavored"):
        apply_stack(file)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("orchestrator:", "orchestratr:", "unknown component type 'orchestratr'; did you mean 'orchestrator'"),
        ("flavor: mlflow", "flavor: mlfow", "unknown flavor 'mlfow'; did you mean 'mlflow'"),
        ("tracking_uri:", "tracking_url:", "unknown key 'tracking_url'; did you mean 'tracking_uri'"),
        ("sqlite:///one.db", "http://127.0.0.1:9", "MLflow .* requires exactly one authentication method"),
        ("sqlite:///one.db", "{{nowhere.uri}}", "holds no secret 'nowhere': zenml secret create nowhere"),
    ],
)
def test_a_mistake_in_a_stack_file_is_named(zenml_home: Path, old: str, new: str, said: str) -> None:
    from stacks.apply import apply_stack

    file = zenml_home / "mistake.yaml"
    file.write_text((STACK.replace("test-stack", "mistaken") % "one.db").replace(old, new))
    with pytest.raises(ConfigError, match=said):
        apply_stack(file)


def test_a_stack_of_a_server_is_not_run_on_another_store(zenml_home: Path) -> None:
    from stacks.apply import require_server
    from stacks.config import StackConfig

    nowhere = StackConfig(name="team", server="", components={})
    with pytest.raises(ConfigError, match="set ZENML_STORE_URL"):
        require_server(Path("team.yaml"), nowhere)
    with pytest.raises(ConfigError, match="but ZenML is connected to sqlite"):
        require_server(Path("team.yaml"), nowhere.model_copy(update={"server": "http://127.0.0.1:9"}))
    require_server(Path("local.yaml"), nowhere.model_copy(update={"server": None}))
