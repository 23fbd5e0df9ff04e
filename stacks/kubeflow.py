"""A pipeline as Kubeflow's IR, compiled by ZenML's Kubeflow orchestrator without a cluster, Docker or an upload.

What the orchestrator does not write, or writes so that it cannot be used, is mended here:

- It puts an API token into every container's environment. Here a container gets the server's API key from a Kubernetes
  Secret, and no file holds either.
- It leaves out retries, GPUs without a node selector, and volumes.
- It names the run by a placeholder in the environment. Were it not resolved there, all runs would count as one; nothing
  that could be run here says that it is. Here the name comes from the pod's label.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from pydantic import BaseModel

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.files import atomic_file
from pocketloop.contracts.recipe import BaseConfig
from stacks.config import StackConfig
from stacks.run_settings import load_runs, with_runs

_RUN_ID = "metadata.labels['pipeline/runid']"
_ENTRYPOINT = "zenml.entrypoints.step_entrypoint_configuration.StepEntrypointConfiguration"
_FOR_SERVER = (
    "ZENML_STORE_TYPE",
    "ZENML_STORE_URL",
    "ZENML_ACTIVE_STACK_ID",
    "ZENML_ACTIVE_PROJECT_ID",
    "DISABLE_CREDENTIALS_DISK_CACHING",
)
"""What a container must know of the server. The rest of the client's configuration names its user and its machine."""


class ContainerStep(BaseModel):
    """A step as the IR has it."""

    name: str
    image: str
    resources: str
    retries: int
    after: list[str]


def compile_pipeline(
    pipeline: Any, config: StackConfig, name: str, out: Path, **parameters: Any
) -> list[ContainerStep]:
    """Write the IR of `pipeline` on the active stack to `out`; its steps in an order in which they may run.

    The pipeline's configuration is kept on the ZenML server as snapshot `name`; the IR refers to it.

    Raises:
        ConfigError: no ZenML server is connected, or the stack cannot run the pipeline.
    """
    from zenml.client import Client
    from zenml.config.global_config import GlobalConfiguration
    from zenml.enums import StoreType
    from zenml.exceptions import StackValidationError
    from zenml.orchestrators.utils import get_config_environment_vars
    from zenml.utils.env_utils import get_runtime_environment

    if GlobalConfiguration().store_configuration.type != StoreType.REST:
        raise ConfigError("containers need a ZenML server: set ZENML_STORE_URL and ZENML_STORE_API_KEY")
    moved = {key: value.relocatable() if isinstance(value, BaseConfig) else value for key, value in parameters.items()}
    prepared = with_runs(pipeline, config, moved)
    prepared.prepare(**moved)
    try:
        snapshot = prepared.create_snapshot(name=name, replace=True)
    except StackValidationError as error:
        raise ConfigError(f"stack {Client().active_stack_model.name}: {error}") from None
    stack = Client().active_stack
    known, _token = get_config_environment_vars()
    shared = {key: value for key, value in known.items() if key in _FOR_SERVER}
    environments = {
        step: {**shared, **get_runtime_environment(found.config, stack)}
        for step, found in snapshot.step_configurations.items()
    }
    with TemporaryDirectory() as folder:
        orchestrator = _compiler(stack.orchestrator, config, snapshot, Path(folder))
        orchestrator.submit_pipeline(snapshot, stack, shared, environments)
        (file,) = Path(folder).glob("*.yaml")
        documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    documents[0]["pipelineInfo"] = {"name": name, "description": f"{snapshot.pipeline.name}, snapshot {snapshot.id}"}
    with atomic_file(out) as temporary:
        temporary.write_text(yaml.safe_dump_all(documents, sort_keys=True), encoding="utf-8")
    return _steps(documents[0])


def _compiler(stacked: Any, config: StackConfig, snapshot: Any, folder: Path) -> Any:
    """The stack's orchestrator, but its IR stays in `folder` and has what ZenML leaves out."""
    from kfp import kubernetes
    from zenml.integrations.kubeflow.orchestrators import KubeflowOrchestrator

    cluster, runs = config.cluster, load_runs(config)

    class Compiler(KubeflowOrchestrator):
        @property
        def pipeline_directory(self) -> str:
            return str(folder)

        def _create_dynamic_component(self, image: str, command: list[str], arguments: list[str], name: str) -> Any:
            lean = ["stacks.entrypoint.LeanStep" if argument == _ENTRYPOINT else argument for argument in arguments]
            return super()._create_dynamic_component(image, command, lean, name)

        def _upload_and_run_pipeline(self, *_: Any, **__: Any) -> None:
            return None

        def _configure_container_resources(self, task: Any, resources: Any, *_: Any) -> Any:
            if resources.cpu_count:
                task.set_cpu_request(str(resources.cpu_count)).set_cpu_limit(str(resources.cpu_count))
            if resources.memory:
                memory = f"{round(resources.get_memory('MiB'))}Mi"
                task.set_memory_request(memory).set_memory_limit(memory)
            if resources.gpu_count:
                task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(resources.gpu_count)
            step = snapshot.step_configurations[task._task_spec.display_name].config
            if step.retry:
                task.set_retry(step.retry.max_retries, f"{step.retry.delay}s", float(step.retry.backoff or 1))
            for label, value in (runs.of(step.name).node_selector or {} if runs else {}).items():
                kubernetes.add_node_selector(task, label, value)
            task.container_spec.env.pop("KFP_RUN_ID")
            kubernetes.use_field_path_as_env(task, "KFP_RUN_ID", _RUN_ID)
            if cluster:
                kubernetes.mount_pvc(task, cluster.home.claim, cluster.home.path)
                for secret, keys in cluster.secrets.items():
                    kubernetes.use_secret_as_env(task, secret, keys)
            return task

    fields = ("name", "id", "config", "flavor", "type", "user", "created", "updated", "environment", "secrets")
    return Compiler(**{field: getattr(stacked, field) for field in fields})


def _steps(spec: dict[str, Any]) -> list[ContainerStep]:
    tasks, found = spec["root"]["dag"]["tasks"], dict[str, ContainerStep]()
    while len(found) < len(tasks):
        for key, task in tasks.items():
            after = task.get("dependentTasks", [])
            if key in found or not all(name in found for name in after):
                continue
            executor = spec["components"][task["componentRef"]["name"]]["executorLabel"]
            container = spec["deploymentSpec"]["executors"][executor]["container"]
            found[key] = ContainerStep(
                name=task["taskInfo"]["name"],
                image=container["image"],
                resources=_said(container.get("resources", {})),
                retries=task.get("retryPolicy", {}).get("maxRetryCount", 0),
                after=after,
            )
    return list(found.values())


def _said(resources: dict[str, Any]) -> str:
    said = [f"{resources['resourceCpuLimit']} CPU"] if "resourceCpuLimit" in resources else []
    said += [resources["resourceMemoryLimit"]] if "resourceMemoryLimit" in resources else []
    if gpu := resources.get("accelerator"):
        said.append(f"{gpu['resourceCount']} {gpu['resourceType']}")
    return ", ".join(said) or "no limits"


def kubeflow_cron(expression: str) -> str:
    """A crontab's five fields as Kubeflow wants them: six, seconds first, Sunday as 0, in the cluster's time (UTC).

    Raises:
        ConfigError: it is not five fields that cron understands.
    """
    from croniter import croniter

    fields = expression.split()
    if len(fields) != 5 or not croniter.is_valid(expression):
        raise ConfigError(f"--cron {expression!r}: expected minute, hour, day, month and weekday, such as '0 3 * * *'")
    if fields[4] != "*":
        fields[4] = ",".join(map(str, croniter.expand(expression)[0][4]))
    return " ".join(["0", *fields])


def write_recurring_run(out: Path, name: str, expression: str) -> None:
    """Write the recurring run (Kubeflow's API, v2beta1) that goes with an IR, which can hold no schedule.

    One run at a time; what was missed while the cluster was down is run once.
    """
    recurring = {
        "display_name": name,
        "max_concurrency": "1",
        "mode": "ENABLE",
        "no_catchup": True,
        "trigger": {"cron_schedule": {"cron": kubeflow_cron(expression)}},
    }
    with atomic_file(out) as temporary:
        temporary.write_text(yaml.safe_dump(recurring), encoding="utf-8")
