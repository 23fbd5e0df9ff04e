"""`pocketloop compile` on what it cannot compile, and the schedule in Kubeflow's words."""

from datetime import datetime
from pathlib import Path

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.cli import compiling
from pocketloop.cli.compiling import compile_
from pocketloop.contracts.errors import ConfigError
from stacks.kubeflow import kubeflow_cron

VARIABLES = {
    "KUBEFLOW_URL": "https://kubeflow.example.com/pipeline",
    "MLFLOW_TRACKING_URI": "https://mlflow.example.com",
    "POCKETLOOP_ARTIFACTS": "s3://artifacts",
    "POCKETLOOP_REGISTRY": "registry.example.com/team",
}


@pytest.fixture
def variables(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    for name in ("ZENML_STORE_URL", "ZENML_STORE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("retain", "functions"), "unknown pipeline 'retain'; known: curate, train, retrain"),
        (("retrain",), "retrain needs an adapter"),
        (("prepare-base",), "prepare-base needs a base"),
        (("retrain", "functoins"), "did you mean 'functions'"),
    ],
)
def test_what_is_not_there_is_named(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        compile_(*arguments, out=tmp_path / "out.yaml")


def test_a_recipes_overrides_have_no_place_where_no_recipe_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="watch reads no recipe"):
        compile_("watch", out=tmp_path / "out.yaml", overrides=["train.lora.r=4"])


def test_only_a_stack_on_kubeflow_is_compiled(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="local.yaml: only a stack with the kubeflow orchestrator"):
        compile_("retrain", "functions", out=tmp_path / "out.yaml", stack="local")


def test_kubeflows_packages_are_asked_for_where_they_are_missing(
    variables: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'pocketloop\[cluster\]'"):
        compile_("retrain", "functions", out=tmp_path / "out.yaml", stack="kubeflow")


def test_a_container_is_sent_to_no_path_of_this_machine(
    variables: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ConfigError, match="lies on this machine: set MLFLOW_TRACKING_URI"):
        compile_("retrain", "functions", out=tmp_path / "out.yaml", stack="kubeflow")


def test_containers_need_a_server(variables: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set ZENML_STORE_URL"):
        compile_("retrain", "functions", out=tmp_path / "out.yaml", stack="kubeflow")
    assert not list(tmp_path.glob("*.yaml"))


@pytest.mark.parametrize(
    ("crontab", "kubeflow"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("30 2 * * 7", "0 30 2 * * 0"),
        ("0 3 * * mon-fri", "0 0 3 * * 1,2,3,4,5"),
        ("*/15 8-18 1 * *", "0 */15 8-18 1 * *"),
    ],
)
def test_a_crontab_gets_seconds_first_and_a_sunday_that_kubeflow_knows(crontab: str, kubeflow: str) -> None:
    assert kubeflow_cron(crontab) == kubeflow


@pytest.mark.parametrize("wrong", ["", "0 3 * *", "0 0 3 * * *", "61 3 * * *", "@daily", "0 3 * * blue"])
def test_what_is_no_crontab_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="expected minute, hour, day, month and weekday"):
        kubeflow_cron(wrong)


@given(
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    days=st.lists(st.integers(0, 7), min_size=1, max_size=7, unique=True),
)
def test_kubeflow_starts_at_the_same_times(minute: int, hour: int, days: list[int]) -> None:
    crontab = f"{minute} {hour} * * {','.join(map(str, days))}"
    seconds, *rest = kubeflow_cron(crontab).split()
    begin = datetime(2026, 11, 21)
    ours, theirs = croniter(crontab, begin), croniter(" ".join(rest), begin)
    assert seconds == "0" and "7" not in rest[4]
    assert [ours.get_next(datetime) for _ in range(8)] == [theirs.get_next(datetime) for _ in range(8)]
