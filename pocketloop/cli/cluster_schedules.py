"""Schedules of an orchestrator (Kubernetes): ZenML hands them over, and the cluster starts the nights."""

from typing import Any

from pocketloop.cli.running import environment, refuse_kubeflow, run_pipeline, use_stack
from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.loading import load_base_config
from pocketloop.contracts.recipe import Recipe

ZONE = "UTC"
"""In which a cluster counts."""


def has_schedules(stack: str, cron: str) -> bool:
    """Whether the stack's orchestrator starts runs itself; the stack is applied to find out.

    Raises:
        ConfigError: it is Kubeflow, whose recurring runs go with a compiled file.
    """
    if stack == "local":
        return False
    refuse_kubeflow(stack, cron)
    environment()
    use_stack(stack)
    from zenml.client import Client

    return bool(Client().active_stack.orchestrator.config.is_schedulable)


def schedule_name(adapter: str) -> str:
    """What the schedule is called in ZenML."""
    return f"pocketloop-{adapter}"


def create(recipe: Recipe, cron: str, stack: str) -> None:
    """Hand the pipeline `retrain` to the stack's orchestrator, to be run at `cron` (UTC), in place of a former one.

    Raises:
        ConfigError: the orchestrator did not take it.
    """
    home = environment()
    from zenml.client import Client
    from zenml.config.schedule import Schedule

    from pipelines.retrain import retrain
    from pocketloop.registry.mlflow_store import ensure_experiment

    name = schedule_name(recipe.adapter)
    if Client().list_schedules(name=name).items:
        delete(recipe.adapter)
    ensure_experiment(home, "retrain")
    scheduled = retrain.with_options(schedule=Schedule(name=name, cron_expression=cron, catchup=False))
    try:
        run_pipeline(scheduled, stack, recipe=recipe, base=load_base_config(recipe.base))
    except ConfigError:
        raise
    except Exception as error:
        for left in Client().list_schedules(name=name).items:  # ZenML enters it before the orchestrator has taken it
            Client().zen_store.delete_schedule(left.id, soft=False)
        reason = str(error).strip().splitlines()
        raise ConfigError(
            f"stack {stack} did not take the schedule: {type(error).__name__}{': ' + reason[0] if reason else ''}; "
            f"`pocketloop stack check {stack}` says what it lacks"
        ) from None


def set_active(adapter: str, active: bool) -> None:
    """Pause or resume the schedule.

    Raises:
        ConfigError: the orchestrator cannot, or ZenML does not know the schedule.
    """
    schedule, orchestrator = _known(adapter)
    if not orchestrator.supports_schedule_updates:
        raise ConfigError(
            f"{adapter}: {orchestrator.flavor} pauses and resumes schedules only in its own pages; or `pocketloop "
            "schedule delete`, and create it again"
        )
    from zenml.client import Client

    Client().update_schedule(schedule.id, active=active)


def delete(adapter: str) -> str:
    """Delete the schedule; says what is left to be done by hand, if anything is."""
    schedule, orchestrator = _known(adapter)
    from zenml.client import Client

    Client().delete_schedule(schedule.id)
    if orchestrator.supports_schedule_deletion:
        return ""
    return f"{orchestrator.flavor} keeps starting it: delete the recurring run of {schedule.name} in its own pages, too"


def nights(adapter: str) -> list[dict[str, str]]:
    """The runs that the orchestrator has started, the newest first: when, and their status."""
    schedule, _ = _known(adapter)
    from zenml.client import Client

    runs = Client().list_pipeline_runs(schedule_id=schedule.id, sort_by="desc:created", size=50).items
    return [{"run": run.name, "started": f"{run.created:%Y-%m-%d %H:%M}", "status": str(run.status)} for run in runs]


def _known(adapter: str) -> tuple[Any, Any]:
    environment()
    from zenml.client import Client
    from zenml.enums import StackComponentType
    from zenml.orchestrators import BaseOrchestrator

    found = Client().list_schedules(name=schedule_name(adapter)).items
    if not found:
        raise ConfigError(f"{adapter}: ZenML knows no schedule {schedule_name(adapter)!r}")
    component = Client().get_stack_component(StackComponentType.ORCHESTRATOR, found[0].orchestrator_id)
    return found[0], BaseOrchestrator.from_model(component)
