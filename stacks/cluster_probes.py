"""Questions to a Kubernetes cluster: is it there, has it the nodes, the volume and the secrets that steps ask for?"""

import os
from collections.abc import Iterable
from typing import Any

from stacks.check import Problem, Unseen
from stacks.config import StackConfig
from stacks.run_settings import RunSettings

GPU = "nvidia.com/gpu"
_TIMEOUT_S = 5


def reachable(config: StackConfig) -> str:
    """The cluster's version."""
    from kubernetes.client import VersionApi

    api = VersionApi(_api(config))
    found = _ask(lambda: api.get_code(_request_timeout=_TIMEOUT_S))
    return f"Kubernetes {found.git_version} at {api.api_client.configuration.host}"


def nodes(config: StackConfig, runs: RunSettings, steps: Iterable[str]) -> str:
    """For every step that asks for GPUs: a node that has as many, with the labels that the step asks for."""
    from kubernetes.client import CoreV1Api

    asking = {step: found for step in steps if (found := runs.of(step)).gpu}
    if not asking:
        return "no step asks for a GPU"
    listed = _ask(lambda: CoreV1Api(_api(config)).list_node(_request_timeout=_TIMEOUT_S)).items
    usable = [node for node in listed if not node.spec.unschedulable]
    for step, wanted in asking.items():
        labels = (wanted.node_selector or {}).items()
        fitting = [node for node in usable if labels <= (node.metadata.labels or {}).items()]
        most = max((_gpus(node) for node in fitting), default=0)
        if most < (wanted.gpu or 0):
            where = f" with labels {dict(labels)}" if labels else ""
            raise Problem(
                f"{step} asks for {wanted.gpu} GPU, but no schedulable node{where} offers more than {most} "
                f"({GPU}; {len(listed)} nodes): add one, or set gpu: 0 in the run settings"
            )
    return f"a GPU node for {', '.join(sorted(asking))}"


def volume(config: StackConfig) -> str:
    """The claim that every step mounts."""
    from kubernetes.client import CoreV1Api

    if config.cluster is None:
        raise Problem("the stack has no `cluster.home`: steps would share no event log")
    claim, space = config.cluster.home.claim, _namespace(config)
    api = CoreV1Api(_api(config))
    missing = f"no claim {claim} in namespace {space}: create a ReadWriteMany PersistentVolumeClaim of that name"
    found = _ask(
        lambda: api.read_namespaced_persistent_volume_claim(claim, space, _request_timeout=_TIMEOUT_S), missing
    )
    if "ReadWriteMany" not in (found.spec.access_modes or []):
        raise Problem(
            f"claim {claim} is {', '.join(found.spec.access_modes or [])}: steps on two nodes need ReadWriteMany"
        )
    return f"claim {claim} in namespace {space}"


def pod_secrets(config: StackConfig) -> str:
    """The Kubernetes secrets whose keys become environment variables; values are not looked at."""
    from kubernetes.client import CoreV1Api

    wanted, space = (config.cluster.secrets if config.cluster else {}), _namespace(config)
    api = CoreV1Api(_api(config))
    for name, keys in wanted.items():
        create = f"kubectl -n {space} create secret generic {name} " + " ".join(f"--from-file={key}" for key in keys)
        missing = f"no secret {name} in namespace {space}: {create}"
        found = _ask(lambda name=name: api.read_namespaced_secret(name, space, _request_timeout=_TIMEOUT_S), missing)
        if absent := sorted(set(keys) - set(found.data or {})):
            raise Problem(f"secret {name} in namespace {space} has no {', '.join(absent)}")
    return ", ".join(wanted) or "none asked for"


def _api(config: StackConfig) -> Any:
    """A client of the cluster, found as kubectl finds it; the stack's context where it names one."""
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.config import ConfigException, load_kube_config

    context = config.components["orchestrator"].configuration.get("kubernetes_context")
    configuration = Configuration()
    configuration.retries = False
    try:
        load_kube_config(os.environ.get("KUBECONFIG"), context, client_configuration=configuration)
    except ConfigException as error:
        if context:
            raise Problem(f"no Kubernetes context {context}: kubectl config get-contexts ({error})") from None
        raise Unseen("no kubeconfig here: ask whoever runs the cluster, or set KUBECONFIG") from None
    return ApiClient(configuration)


def _ask(question: Any, missing: str = "") -> Any:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return question()
    except ApiException as error:
        if error.status in (401, 403):
            raise Unseen(f"the cluster does not let this account look ({error.status})") from None
        if error.status == 404 and missing:
            raise Problem(missing) from None
        raise Problem(f"the cluster answers {error.status} {error.reason}") from None
    except HTTPError as error:
        raise Problem(f"the cluster does not answer ({type(error).__name__}): kubectl cluster-info") from None


def _namespace(config: StackConfig) -> str:
    given = config.components["orchestrator"].configuration
    return str(given.get("kubernetes_namespace") or given.get("user_namespace") or given.get("kubeflow_namespace"))


def _gpus(node: Any) -> int:
    return int((node.status.allocatable or {}).get(GPU, 0))
