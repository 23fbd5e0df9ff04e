from pathlib import Path

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


def test_applying_a_stack_twice_changes_nothing_and_a_changed_file_updates_it(zenml_home: Path) -> None:
    from zenml.client import Client

    from stacks.apply import apply_stack

    file = zenml_home / "stack.yaml"
    file.write_text(STACK % "one.db")
    assert set(apply_stack(file).values()) == {"created"}
    assert set(apply_stack(file).values()) == {"unchanged"}
    file.write_text(STACK % "two.db")
    assert apply_stack(file)["experiment_tracker"] == "updated"
    assert Client().active_stack_model.name == "test-stack"


def test_an_unknown_component_type_is_named(zenml_home: Path) -> None:
    from stacks.apply import apply_stack

    file = zenml_home / "stack.yaml"
    file.write_text("name: bad\ncomponents:\n  orchestratr: {flavor: local}\n")
    with pytest.raises(ConfigError, match="unknown component type 'orchestratr'"):
        apply_stack(file)


def test_a_server_without_an_account_is_a_clear_error(zenml_home: Path) -> None:
    from stacks.apply import apply_stack

    file = zenml_home / "stack.yaml"
    file.write_text((STACK % "one.db").replace("sqlite:///one.db", "http://127.0.0.1:9"))
    with pytest.raises(ConfigError, match="experiment_tracker: MLflow .* requires exactly one authentication method"):
        apply_stack(file)
