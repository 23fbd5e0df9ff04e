"""The pipelines on a cluster, as far as it goes without one: compiled for Kubeflow, and each container's command run.

A ZenML server, an S3 server and the volume are real. No Kubernetes is: tests/ir_runner.py says what stands for it.
"""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import yaml
from command_line import POCKETLOOP, Fleet, WarmFleet, forked
from ir_runner import CHECKOUT, Cluster
from zenml_server import Server, zenml_server

from pocketloop.contracts.home import Home
from pocketloop.contracts.reports import ReleaseBundle
from pocketloop.registry.mlflow_store import candidate, ensure_experiment, fetch_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

GATED = 3
"""So little training does not beat the base."""

RECIPE = [
    "--set=data.sources=[{kind: examples, uri: 'demo://functions?split=train&n=160&seed=3'}]",
    "--set=train.stages.0.sft.epochs=1",
    "--set=evaluation.sets.0.limit=24",
    "--set=gates=[]",
    "--set=safety={behaviour: null}",
    "--set=scrub.ner.engine=none",
]
SECRETS = {
    "pocketloop": {
        "mlflow-username": "pipeline",
        "mlflow-password": "mlflow-password-of-the-test",
        "aws-access-key-id": "key-of-the-test",
        "aws-secret-access-key": "aws-secret-of-the-test",
    }
}


@dataclass(frozen=True)
class Team:
    """What a team has beside its cluster: servers, a volume, and an environment for the command line."""

    server: Server
    volume: Path
    stack: Path
    environment: dict[str, str]

    def compile(self, *commands: list[str]) -> str:
        """Run `pocketloop compile` with each list of arguments."""
        said = ""
        for command in commands:
            words = [POCKETLOOP, "compile", *command, "--stack", str(self.stack)]
            status, printed = forked(words, self.environment, CHECKOUT)
            assert status == 0, printed
            said += printed
        return said


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, s3_server: str) -> Iterator[Team]:
    """stacks/kubeflow.yaml as it is, but the volume and a pod's own disk lie where this test may write."""
    folder = tmp_path_factory.mktemp("team")
    volume = folder / "volume"
    volume.mkdir()
    text = (CHECKOUT / "stacks" / "kubeflow.yaml").read_text(encoding="utf-8")
    stack = folder / "kubeflow.yaml"
    stack.write_text(
        text.replace("/var/lib/pocketloop", str(volume)).replace("/tmp/pocketloop", str(folder / "scratch"))
    )
    secrets = SECRETS["pocketloop"]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ZENML_")},
        "PYTHONPATH": str(CHECKOUT),
        "POCKETLOOP_HOME": str(folder / "client"),
        "POCKETLOOP_ARTIFACTS": "s3://artifacts",
        "POCKETLOOP_REGISTRY": "registry.example.com/team",
        "KUBEFLOW_URL": "https://kubeflow.example.com/pipeline",
        "MLFLOW_TRACKING_URI": f"sqlite:///{volume / 'mlflow.db'}",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": secrets["aws-access-key-id"],
        "AWS_SECRET_ACCESS_KEY": secrets["aws-secret-access-key"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    boto3.client(
        "s3", endpoint_url=s3_server, aws_access_key_id="any", aws_secret_access_key="any", region_name="us-east-1"
    ).create_bucket(Bucket="artifacts")
    with zenml_server(folder / "server") as server:
        environment |= {"ZENML_STORE_URL": server.url, "ZENML_STORE_API_KEY": server.key}
        _make_zenml_secrets(server, secrets)
        yield Team(server, volume, stack, environment)


def _make_zenml_secrets(server: Server, secrets: dict[str, str]) -> None:
    made = {
        "pocketloop-kubeflow": {"USERNAME": "pipeline", "PASSWORD": "kubeflow-password-of-the-test"},
        "pocketloop-s3": {
            "AWS_ACCESS_KEY_ID": secrets["aws-access-key-id"],
            "AWS_SECRET_ACCESS_KEY": secrets["aws-secret-access-key"],
        },
        "pocketloop-mlflow": {
            "MLFLOW_TRACKING_USERNAME": secrets["mlflow-username"],
            "MLFLOW_TRACKING_PASSWORD": secrets["mlflow-password"],
        },
    }
    with httpx.Client(base_url=f"{server.url}/api/v1", timeout=120) as api:
        signed_in = api.post("/login", data={"grant_type": "zenml-api-key", "password": server.key}).raise_for_status()
        api.headers["Authorization"] = f"Bearer {signed_in.json()['access_token']}"
        for name, values in made.items():
            api.post("/secrets", json={"name": name, "values": values}).raise_for_status()


def test_every_pipeline_compiles_to_what_kubeflows_own_schema_takes(team: Team, tmp_path: Path) -> None:
    from google.protobuf import json_format
    from kfp import components
    from kfp.kubernetes import kubernetes_executor_config_pb2
    from kfp.pipeline_spec import pipeline_spec_pb2

    of = {"curate": "functions", "train": "intent", "retrain": "functions", "promote": "functions", "watch": ""}
    of["prepare-base"] = "tiny"
    out = {name: tmp_path / f"{name}.yaml" for name in of}
    given = [[name, *([of[name]] if of[name] else []), "--out", str(out[name])] for name in of]
    said = team.compile(*[[*command, "--cron", "30 2 * * 7"] for command in given])
    assert "retrain-functions" in said and "kfp run create" in said
    for name, file in out.items():
        text = file.read_text(encoding="utf-8")
        spec, platform = yaml.safe_load_all(text)
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec(), ignore_unknown_fields=False)
        pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        for pod in pods.values():
            message = kubernetes_executor_config_pb2.KubernetesExecutorConfig()
            json_format.ParseDict(pod, message, ignore_unknown_fields=False)
        assert len(pods) == len(spec["root"]["dag"]["tasks"])
        assert components.load_component_from_file(str(file)).pipeline_spec.pipeline_info.name.startswith(name)
        _holds_no_secret(text, team)
        recurring = yaml.safe_load(file.with_suffix(".recurring.yaml").read_text(encoding="utf-8"))
        assert recurring["trigger"]["cron_schedule"]["cron"] == "0 30 2 * * 0"
    _trains_on_a_gpu_and_is_retried(out["retrain"])


def _holds_no_secret(text: str, team: Team) -> None:
    values = [team.server.key, *SECRETS["pocketloop"].values()]
    values.remove("pipeline")  # an account's name, and a word of Kubeflow's
    assert not [value for value in values if value in text]
    assert not re.search(r"eyJ[\w-]+\.[\w-]+\.[\w-]+|ZENKEY_|API_TOKEN", text), "a token stands in the file"
    assert str(CHECKOUT) not in text


def _trains_on_a_gpu_and_is_retried(file: Path) -> None:
    spec, _ = yaml.safe_load_all(file.read_text(encoding="utf-8"))
    containers: dict[str, Any] = {
        name: found["container"] for name, found in spec["deploymentSpec"]["executors"].items()
    }
    on_gpu = [name for name, found in containers.items() if "accelerator" in found.get("resources", {})]
    assert on_gpu == ["exec-train-adapter"]
    assert len({found["image"] for found in containers.values()}) == 3  # data, train, export
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks["train-adapter"]["retryPolicy"]["maxRetryCount"] == 2
    assert all(task["retryPolicy"]["maxRetryCount"] >= 1 for task in tasks.values())
    assert all(not task["cachingOptions"].get("enableCache") for task in tasks.values())  # ZenML's caching decides


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """The same recipe on one machine."""
    fleet = WarmFleet(tmp_path_factory.mktemp("local"))
    fleet.run("retrain", "functions", *RECIPE, status=GATED)
    return fleet


def test_the_containers_of_a_retraining_register_what_a_local_run_registers(
    team: Team, local: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shared = Home(team.volume)
    shutil.copytree(local.home.keys, shared.keys)  # whoever has the same pseudonyms has the same keys
    ensure_experiment(shared, "retrain")  # MLflow's server would name a place for its artifacts
    ir = tmp_path / "retrain.yaml"
    team.compile(["retrain", "functions", *RECIPE, "--out", str(ir)])
    secrets = {"pocketloop": {**SECRETS["pocketloop"], "zenml-api-key": team.server.key}}
    ended = Cluster(tmp_path / "pods", secrets).run(ir, "run-of-the-test")
    failed = {name: task.printed[-3000:] for name, task in ended.items() if not task.succeeded}
    assert not failed and "register" in ended
    here, there = candidate(local.home, "functions", "1"), candidate(shared, "functions", "1")
    for same in ("verdict", "dataset_digest", "recipe_digest", "base_digest", "metrics"):
        assert getattr(there, same) == getattr(here, same), same
    assert _files(shared) == _files(local.home)  # its own digest covers seconds and bytes that were measured


def _files(home: Home) -> dict[str, str]:
    with fetch_bundle(home, candidate(home, "functions", "1")) as bundle:
        return ReleaseBundle.model_validate_json((bundle / "bundle.json").read_bytes()).files
