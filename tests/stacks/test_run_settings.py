from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.errors import ConfigError
from stacks.config import Cluster, ClusterHome, Component, StackConfig
from stacks.kinds import KIND_OF, KINDS
from stacks.run_settings import Retry, RunSettings, StepRun, load_runs, with_runs

CLUSTER = StackConfig(
    name="cluster",
    runs="cluster",
    cluster=Cluster(
        home=ClusterHome(claim="home", path="/state"),
        environment={"MLFLOW_TRACKING_URI": "http://mlflow"},
        secrets={"keys": {"token": "TOKEN"}},
    ),
    components={
        "orchestrator": Component(flavor="kubernetes"),
        "container_registry": Component(flavor="default", configuration={"uri": "registry.example.com/team"}),
    },
)


def step_runs() -> st.SearchStrategy[StepRun]:
    return st.builds(
        StepRun,
        cpu=st.none() | st.integers(1, 64),
        memory=st.none() | st.sampled_from(["4GiB", "16GB"]),
        gpu=st.none() | st.integers(0, 8),
        retry=st.none() | st.builds(Retry, retries=st.integers(1, 5)),
        caching=st.none() | st.booleans(),
        environment=st.dictionaries(st.sampled_from("ABC"), st.sampled_from("xyz")),
    )


@given(kind=step_runs(), step=step_runs(), retry=st.none() | st.builds(Retry, retries=st.integers(1, 5)))
def test_what_is_more_specific_wins_key_by_key(kind: StepRun, step: StepRun, retry: Retry | None) -> None:
    found = RunSettings(kinds={"data": kind}, steps={"scrub": step}, retry=retry, environment={"A": "0"}).of("scrub")
    for key in ("cpu", "memory", "gpu", "caching", "retry"):
        general = retry if key == "retry" else None
        layers = [getattr(step, key), getattr(kind, key), general]
        assert getattr(found, key) == next((value for value in layers if value is not None), None)
    assert found.environment == {"A": "0", **kind.environment, **step.environment}


@pytest.mark.parametrize("stack", ["cluster", "team"])
def test_the_run_settings_that_are_shipped_load_and_only_training_asks_for_a_gpu(stack: str) -> None:
    runs = load_runs(StackConfig(name="any", runs=stack, components={}))
    assert runs is not None
    asking = {step for step in KIND_OF if runs.of(step).gpu}
    assert asking == ({"train_adapter"} if stack == "cluster" else set())


def test_an_unknown_step_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "runs.yaml"
    file.write_text("steps:\n  train_adaptr: {gpu: 1}\n")
    with pytest.raises(ConfigError, match=r"no step 'train_adaptr'; did you mean 'train_adapter'"):
        load_runs(StackConfig(name="any", runs=str(file), components={}))


def test_every_step_has_a_kind() -> None:
    root = Path(__file__).resolve().parents[2]
    found = {name for file in (root / "steps").glob("*.py") for name in steps_in(file)}
    assert found == set(KIND_OF)
    assert set(KIND_OF.values()) == set(KINDS)


def steps_in(file: Path) -> set[str]:
    import ast

    functions = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
    return {f.name for f in functions if any("id='step'" in ast.dump(decorator) for decorator in f.decorator_list)}


@pytest.mark.slow
def test_each_invocation_of_a_pipeline_gets_its_kinds_image_and_resources(zenml_home: Path) -> None:
    from pipelines.retrain import retrain
    from pocketloop.contracts.loading import load_base_config, load_recipe

    recipe = load_recipe("functions")
    parameters = {"recipe": recipe, "base": load_base_config(recipe.base)}
    configured = with_runs(retrain, CLUSTER, parameters)
    steps: dict[str, Any] = configured._run_args["step_configurations"]
    assert {"champion", "champion_2", "train_adapter", "scrub"} <= set(steps)
    trained, scrubbed = steps["train_adapter"], steps["scrub"]
    assert trained["settings"]["resources"] == {"cpu_count": 8, "memory": "32GiB", "gpu_count": 1}
    assert "/pocketloop-train:" in trained["settings"]["docker"]["parent_image"]
    assert trained["settings"]["docker"]["skip_build"]
    assert trained["retry"]["max_retries"] == 2
    assert "gpu_count" not in scrubbed["settings"]["resources"]
    assert "/pocketloop-data:" in scrubbed["settings"]["docker"]["parent_image"]
    of_all = {"MLFLOW_TRACKING_URI": "http://mlflow", "POCKETLOOP_HOME": "/state"}
    assert trained["environment"] == of_all
    assert scrubbed["environment"] == {**of_all, "POCKETLOOP_WORKERS": "8"}
    pod = scrubbed["settings"]["orchestrator"]["pod_settings"]
    assert pod["volume_mounts"] == [{"name": "home", "mountPath": "/state"}]
    assert pod["env"] == [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}}]
    assert "/pocketloop-data:" in configured.configuration.docker_settings.parent_image
    assert with_runs(retrain, CLUSTER.model_copy(update={"runs": None}), parameters) is retrain
    greedy = load_recipe("functions", ["train.resources.processes=4", "train.resources.nodes=2"])
    with pytest.raises(ConfigError, match=r"functions ask for 2 processes on a machine, .* give train_adapter 1 GPU"):
        with_runs(retrain, CLUSTER, {**parameters, "recipe": greedy})


@pytest.mark.slow
def test_a_failed_step_is_started_again_as_its_run_settings_say(zenml_home: Path, tmp_path: Path) -> None:
    from flaky_pipeline import once

    from stacks.apply import apply_stack
    from stacks.config import load_stack

    tries = tmp_path / "tries"
    stack, runs = tmp_path / "stack.yaml", tmp_path / "runs.yaml"
    parts = "components:\n  orchestrator: {flavor: local}\n  artifact_store: {flavor: local}\n"
    stack.write_text(f"name: again\nruns: {runs}\n{parts}")
    runs.write_text("steps:\n  people: {retry: {retries: 1}}\n")
    apply_stack(stack)
    run = with_runs(once, load_stack(stack), {"count": str(tries)})(count=str(tries))
    assert str(run.status) == "completed"
    assert tries.read_text() == ".."
