"""One question to each server that a stack names; each answer is a sentence, or a Problem that says what to do."""

import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stacks.check import Problem, Unseen, local_records, resolved
from stacks.config import StackConfig
from stacks.images import image_reference
from stacks.kinds import KIND_OF, KINDS
from stacks.plan import missing_secret, secret_references
from stacks.run_settings import RunSettings

TIMEOUT_S = 5.0


def records(path: Path, config: StackConfig) -> str:
    """ZenML's server: there, of this version, and the one that this process is connected to."""
    import zenml

    if config.server is None:
        return local_records()
    from stacks.apply import require_server

    if not config.server:
        require_server(path, config)
    version = _json(_get("ZenML's server", f"{config.server.rstrip('/')}/api/v1/info")).get("version")
    if version != zenml.__version__:
        raise Problem(
            f"ZenML's server is {version or 'of no known version'}, here is {zenml.__version__}: use one version"
        )
    _client()
    require_server(path, config)
    return f"ZenML {version} at {config.server}"


def secrets(config: StackConfig) -> str:
    """Every ZenML secret that the file refers to."""
    named = sorted(secret_references({kind: part.configuration for kind, part in config.components.items()}))
    if not named:
        return "the file refers to none"
    client = _client()
    if missing := [found for name, key in named if (found := missing_secret(client, name, key))]:
        raise Problem("; ".join(dict.fromkeys(missing)))
    return ", ".join(sorted({name for name, _ in named}))


def mlflow(config: StackConfig) -> str:
    """MLflow's server, with the account that the stack gives."""
    given = config.components["experiment_tracker"].configuration
    uri = str(given.get("tracking_uri", ""))
    if not uri.startswith(("http://", "https://")):
        return "no server: a store of this machine"
    account = None
    if "tracking_username" in given:
        client = _client()
        account = (resolved(client, given["tracking_username"]), resolved(client, given.get("tracking_password", "")))
    address = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1"
    answer = _get("MLflow", address, account=account, allowed=(200, 401, 403))
    if answer.status_code != 200:
        raise Problem(
            f"MLflow at {_shown(uri)} refuses the account ({answer.status_code}): see secret pocketloop-mlflow"
        )
    return f"MLflow at {_shown(uri)}"


def s3(config: StackConfig) -> str:
    """The bucket of the artifacts: may a run write there?"""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    given = config.components["artifact_store"].configuration
    at = urlsplit(str(given["path"]))
    account: dict[str, str] = {}
    if "key" in given:
        zenml = _client()
        account["aws_access_key_id"] = resolved(zenml, given["key"])
        account["aws_secret_access_key"] = resolved(zenml, given.get("secret", ""))
    options: dict[str, Any] = {**given.get("client_kwargs", {}), **account}
    limits = Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"max_attempts": 0})
    name = "/".join(filter(None, [at.path.strip("/"), ".pocketloop-check"]))
    try:
        client = boto3.client("s3", config=limits, **options)
        client.put_object(Bucket=at.netloc, Key=name, Body=b"")
        client.delete_object(Bucket=at.netloc, Key=name)
    except (BotoCoreError, ClientError, ValueError) as error:
        raise Problem(f"cannot write to {given['path']}: {error}") from None
    return f"can write to {given['path']}"


def images(config: StackConfig, runs: RunSettings | None) -> str:
    """The image of each kind of step in the registry; Docker, where one must be built first."""
    registry = str(config.components["container_registry"].configuration["uri"])
    given = {
        (runs or RunSettings()).of(step).image or image_reference(kind, registry) for step, kind in KIND_OF.items()
    }
    found = {image: _in_registry(image) for image in sorted(given)}
    if absent := [image for image, there in found.items() if there is False]:
        build = f"pocketloop stack images --build --push --registry {registry}"
        raise Problem(f"not in the registry: {', '.join(absent)}; {build}{_docker_hint(config)}")
    if None in found.values():
        raise Unseen(f"{registry} asks for an account, which is not tried here: make sure that the images are there")
    return f"{len(KINDS)} kinds of image in {registry}"


def kubeflow(config: StackConfig) -> str:
    """Kubeflow Pipelines' API."""
    host = config.components["orchestrator"].configuration.get("kubeflow_hostname")
    if not host:
        raise Unseen("no kubeflow_hostname: reached through the Kubernetes API")
    at = str(host).rstrip("/").removesuffix("/pipeline")
    answer = _get("Kubeflow Pipelines", f"{at}/pipeline/apis/v2beta1/healthz", allowed=(200, 302, 401, 403))
    if answer.status_code != 200:
        raise Unseen(f"{at} is there and asks for an account, which is not tried here")
    return f"Kubeflow Pipelines at {at}"


def _in_registry(image: str) -> bool | None:
    """Whether a registry holds an image; None where it asks for an account."""
    host, _, rest = image.partition("/")
    name, _, tag = rest.rpartition(":")
    scheme = "http" if host.split(":")[0] in ("localhost", "127.0.0.1") else "https"
    answer = _get(
        f"the registry {host}",
        f"{scheme}://{host}/v2/{name}/manifests/{tag}",
        allowed=(200, 401, 403, 404),
        headers={
            "Accept": "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json"
        },
    )
    return {200: True, 404: False}.get(answer.status_code)


def _docker_hint(config: StackConfig) -> str:
    builder = config.components.get("image_builder")
    if builder is None or builder.flavor != "local":
        return ""
    try:
        ran = subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return "; Docker, which builds them, does not answer here: start it, or build elsewhere"
    return (
        "" if ran.returncode == 0 else "; Docker, which builds them, is not running here: start it, or build elsewhere"
    )


def _get(
    who: str,
    url: str,
    account: tuple[str, str] | None = None,
    allowed: tuple[int, ...] = (200,),
    headers: dict[str, str] | None = None,
) -> Any:
    import requests

    try:
        answer = requests.get(url, auth=account, timeout=TIMEOUT_S, allow_redirects=False, headers=headers)
    except requests.RequestException as error:
        raise Problem(f"{who} does not answer at {_shown(url)} ({type(error).__name__}): is it running?") from None
    if answer.status_code not in allowed:
        raise Problem(f"{who} answers {answer.status_code} at {_shown(url)}: is that its address?")
    return answer


def _json(answer: Any) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _shown(url: str) -> str:
    """A URL without account, path and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _client() -> Any:
    """ZenML's client, connected."""
    from zenml.client import Client

    try:
        client = Client()
        _ = client.zen_store
    except Exception as error:  # ZenML raises its transport's errors as they are
        raise Problem(f"ZenML's store cannot be opened: {error}") from None
    return client
