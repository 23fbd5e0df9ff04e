"""`stack check` against servers on loopback, alive and dead; port 9 of loopback answers nobody."""

from pathlib import Path
from typing import Any

import pytest
from loopback import kubeconfig, node, serving

from pocketloop.contracts.parsing import unset_variables
from stacks.check import Check, check_stack
from stacks.cluster_probes import nodes, pod_secrets, reachable, volume
from stacks.config import Cluster, ClusterHome, Component, StackConfig
from stacks.images import image_reference
from stacks.kinds import KINDS
from stacks.probes import images, kubeflow, mlflow
from stacks.run_settings import RunSettings, StepRun

ANY = Path("any.yaml")
DEAD = "http://127.0.0.1:9"
LOCAL = "name: here\ncomponents:\n  orchestrator: {flavor: local}\n  artifact_store: {flavor: local}\n"


def found(checks: list[Check]) -> dict[str, tuple[bool | None, str]]:
    return {check.what: (check.ok, check.said) for check in checks}


def stack_of(**components: dict[str, Any]) -> StackConfig:
    parts = {kind: Component.model_validate(given) for kind, given in components.items()}
    return StackConfig(name="any", components=parts)


def cluster(context: str = "lab") -> StackConfig:
    orchestrator = {
        "flavor": "kubernetes",
        "configuration": {"kubernetes_context": context, "kubernetes_namespace": "ml"},
    }
    lent = Cluster(home=ClusterHome(claim="home", path="/state"), secrets={"keys": {"token": "TOKEN"}})
    return stack_of(orchestrator=orchestrator).model_copy(update={"cluster": lent})


def outcome(probe: Any, *arguments: Any) -> tuple[str, str]:
    """What became of a probe (ok, Problem or Unseen), and what it said."""
    from stacks.check import Problem, Unseen

    try:
        return "ok", probe(*arguments)
    except (Problem, Unseen) as said:
        return type(said).__name__, str(said)


def test_the_local_stack_needs_no_server(zenml_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{zenml_home}/mlflow.db")
    checks = check_stack(Path(__file__).resolve().parents[2] / "stacks" / "local.yaml", "functions")
    assert [check for check in checks if not check.ok] == []
    assert {"recipe", "file", "packages", "records", "mlflow"} <= set(found(checks))


def test_each_variable_that_is_not_set_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "stack.yaml"
    file.write_text("# ${NOT_ASKED}\nname: ${FIRST_NAME}\nserver: ${URL:-}\ncomponents: {a: {flavor: '${SECOND}'}}\n")
    monkeypatch.setenv("SECOND", "local")
    assert unset_variables(file) == ["FIRST_NAME"]
    monkeypatch.delenv("SECOND")
    assert [(check.ok, check.said.split()[0]) for check in check_stack(file)] == [
        (False, "FIRST_NAME"),
        (False, "SECOND"),
    ]


def test_a_file_that_is_wrong_or_not_there_is_a_failed_check(tmp_path: Path) -> None:
    assert found(check_stack(tmp_path / "none.yaml"))["file"][0] is False
    file, runs = tmp_path / "stack.yaml", tmp_path / "runs.yaml"
    file.write_text(LOCAL + f"runs: {runs}\n")
    runs.write_text("steps: {scrubb: {cpu: 4}}\n")
    ok, said = found(check_stack(file))["file"]
    assert ok is False
    assert "did you mean 'scrub'" in said


def test_a_missing_client_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import stacks.check

    monkeypatch.setattr(stacks.check, "_is_there", lambda module: module != "kfp.kubernetes")
    file = tmp_path / "stack.yaml"
    file.write_text(LOCAL.replace("orchestrator: {flavor: local}", "orchestrator: {flavor: kubeflow}"))
    assert found(check_stack(file))["packages"] == (False, "kubeflow needs kfp-kubernetes: pip install kfp-kubernetes")


@pytest.mark.slow
def test_a_zenml_server_is_looked_for_and_its_version_compared(zenml_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "stack.yaml"
    for server, said in (("", "set ZENML_STORE_URL"), (DEAD, "does not answer")):
        file.write_text(
            LOCAL.replace("flavor: local}", "flavor: local, configuration: {path: '{{a.b}}'}}")
            + f"server: '{server}'\n"
        )
        checks = found(check_stack(file))
        assert checks["records"][0] is False
        assert said in checks["records"][1]
        assert checks["secrets"] == (None, "ZenML's server is not connected: see records")
    with serving({"/api/v1/info": (200, {"version": "0.1.0"})}) as url:
        file.write_text(LOCAL + f"server: {url}\n")
        assert "server is 0.1.0, here is" in found(check_stack(file))["records"][1]


@pytest.mark.slow
def test_an_unset_secret_is_found(zenml_home: Path, tmp_path: Path) -> None:
    from zenml.client import Client

    file = tmp_path / "stack.yaml"
    given = f'tracking_uri: "{DEAD}", tracking_username: "{{{{check.user}}}}", tracking_password: "{{{{check.word}}}}"'
    file.write_text(LOCAL + f"  experiment_tracker: {{flavor: mlflow, configuration: {{{given}}}}}\n")
    assert found(check_stack(file))["secrets"][0] is False
    Client().create_secret("check", {"user": "pipeline"})
    assert "no key 'word'" in found(check_stack(file))["secrets"][1]
    Client().update_secret("check", add_or_update_values={"word": "hush-hush"})
    checks = found(check_stack(file))
    assert checks["secrets"] == (True, "check")
    assert checks["mlflow"][0] is False
    assert "does not answer" in checks["mlflow"][1]
    assert "hush-hush" not in str(checks)


def test_mlflow_is_asked_with_the_stacks_account() -> None:
    def tracker(uri: str) -> StackConfig:
        return stack_of(experiment_tracker={"flavor": "mlflow", "configuration": {"tracking_uri": uri}})

    with serving({"/api/2.0/mlflow/experiments/search": (200, {})}) as url:
        assert outcome(mlflow, ANY, tracker(url)) == ("ok", f"MLflow at {url}")
    with serving({"/api/2.0/mlflow/experiments/search": (401, {})}) as url:
        assert "refuses the account (401)" in outcome(mlflow, ANY, tracker(url))[1]
    with serving({}) as url:
        assert "answers 404" in outcome(mlflow, ANY, tracker(url))[1]
    assert outcome(mlflow, ANY, tracker("sqlite:///one.db"))[0] == "ok"
    shared = tracker("sqlite:///one.db").model_copy(update={"server": DEAD})
    assert "set MLFLOW_TRACKING_URI" in outcome(mlflow, ANY, shared)[1]


@pytest.mark.slow
def test_artifacts_must_be_writable(s3: str, tmp_path: Path) -> None:
    import s3fs

    from stacks.probes import s3 as probe

    def store(path: str, **more: Any) -> StackConfig:
        return stack_of(artifact_store={"flavor": "s3", "configuration": {"path": path, **more}})

    assert outcome(probe, ANY, store(s3)) == ("ok", f"can write to {s3}")
    assert s3fs.S3FileSystem().find(s3) == []
    assert "NoSuchBucket" in outcome(probe, ANY, store("s3://absent-bucket/prefix"))[1]
    assert "cannot write" in outcome(probe, ANY, store(s3, client_kwargs={"endpoint_url": DEAD}))[1]


def test_an_image_that_is_not_in_the_registry_comes_with_the_command_that_builds_it() -> None:
    def registry(url: str) -> StackConfig:
        uri = f"{url.removeprefix('http://')}/team"
        return stack_of(
            container_registry={"flavor": "default", "configuration": {"uri": uri}}, image_builder={"flavor": "local"}
        )

    def manifests(kinds: Any) -> dict[str, tuple[int, Any]]:
        references = (image_reference(kind, "team").rsplit(":", 1) for kind in kinds)
        return {f"/v2/{name}/manifests/{tag}": (200, {}) for name, tag in references}

    with serving(manifests(KINDS)) as url:
        assert outcome(images, registry(url), None)[0] == "ok"
    with serving(manifests(["data", "train"])) as url:
        became, said = outcome(images, registry(url), None)
        assert became == "Problem"
        assert "pocketloop-export:" in said
        assert "pocketloop-data:" not in said
        assert "pocketloop stack images --build --push" in said
    with serving({"/v2/": (401, {})}) as url:
        assert outcome(images, registry(url), None)[0] == "Unseen"
    assert "does not answer" in outcome(images, registry(DEAD), None)[1]


def test_kubeflow_is_there_or_asks_for_an_account_or_is_dead() -> None:
    def pipelines(url: str) -> StackConfig:
        return stack_of(orchestrator={"flavor": "kubeflow", "configuration": {"kubeflow_hostname": f"{url}/pipeline"}})

    for answers, became in (({"/pipeline/apis/v2beta1/healthz": (200, {})}, "ok"), ({"/": (302, {})}, "Unseen")):
        with serving(answers) as url:
            assert outcome(kubeflow, pipelines(url))[0] == became
    assert outcome(kubeflow, pipelines(DEAD))[0] == "Problem"


def test_a_gpu_node_must_be_there_schedulable_and_labelled_as_the_step_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    asks = RunSettings(steps={"train_adapter": StepRun(gpu=2, node_selector={"pool": "gpu"})})
    cases = [
        ([node("one", gpus=2, pool="gpu")], "ok"),
        ([node("one"), node("two", gpus=1, pool="gpu")], "Problem"),
        ([node("one", gpus=2)], "Problem"),
        ([node("one", gpus=2, unschedulable=True, pool="gpu")], "Problem"),
        ([], "Problem"),
    ]
    for listed, became in cases:
        with serving({"/api/v1/nodes": (200, {"kind": "NodeList", "items": listed})}) as url:
            (tmp_path / "kubeconfig").write_text(kubeconfig(url))
            assert outcome(nodes, cluster(), asks, ["train_adapter", "scrub"])[0] == became
    assert outcome(nodes, cluster(), RunSettings(), ["train_adapter"]) == ("ok", "no step asks for a GPU")


def test_what_pods_mount_and_read_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    claim, secret = "/api/v1/namespaces/ml/persistentvolumeclaims/home", "/api/v1/namespaces/ml/secrets/keys"
    shared = {
        claim: (200, {"spec": {"accessModes": ["ReadWriteMany"]}}),
        secret: (200, {"data": {"token": "aHVzaA=="}}),
    }
    single = {claim: (200, {"spec": {"accessModes": ["ReadWriteOnce"]}}), secret: (200, {"data": {"other": "eA=="}})}
    refused = {claim: (403, {}), secret: (403, {})}
    for answers, became in ((shared, "ok"), (single, "Problem"), ({}, "Problem"), (refused, "Unseen")):
        with serving(answers) as url:
            (tmp_path / "kubeconfig").write_text(kubeconfig(url))
            assert outcome(volume, cluster())[0] == became
            assert outcome(pod_secrets, cluster())[0] == became
    with serving({}) as url:
        (tmp_path / "kubeconfig").write_text(kubeconfig(url))
        assert "kubectl -n ml create secret generic keys --from-file=token" in outcome(pod_secrets, cluster())[1]


def test_a_cluster_that_does_not_answer_or_has_no_such_context_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    (tmp_path / "kubeconfig").write_text(kubeconfig(DEAD))
    assert "does not answer" in outcome(reachable, cluster())[1]
    assert "no Kubernetes context elsewhere" in outcome(reachable, cluster("elsewhere"))[1]
    version = {
        "major": "1",
        "minor": "31",
        "gitVersion": "v1.31.0",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
    }
    more = {"goVersion": "", "compiler": "", "platform": ""}
    with serving({"/version": (200, {**version, **more})}) as url:
        (tmp_path / "kubeconfig").write_text(kubeconfig(url))
        assert outcome(reachable, cluster()) == ("ok", f"Kubernetes v1.31.0 at {url}")
