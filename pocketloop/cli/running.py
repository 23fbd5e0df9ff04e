"""Starting a pipeline: the environment it needs, the stack it runs on, and what to say when it ends."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pocketloop.cli.completion import stack_names
from pocketloop.cli.console import is_verbose
from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.home import Home, project_root

Stack = Annotated[
    str, typer.Option(help="A stack of stacks/, or the path of a stack file.", autocompletion=stack_names)
]


def environment() -> Home:
    """The project's home, with ZenML and MLflow pointed at it; must come before either is imported."""
    home = Home()
    home.root.mkdir(parents=True, exist_ok=True)
    os.environ["POCKETLOOP_HOME"] = str(home.root)
    os.environ["MLFLOW_TRACKING_URI"] = home.mlflow_uri
    os.environ.setdefault("ZENML_CONFIG_PATH", str(home.zenml))
    os.environ.setdefault("ZENML_LOGGING_VERBOSITY", "INFO" if is_verbose() else "CRITICAL")
    os.environ.setdefault("ZENML_DISABLE_STEP_LOGS_STORAGE", "false")
    os.environ.setdefault("ZENML_ENABLE_RICH_TRACEBACK", "false")
    Path(os.environ["ZENML_CONFIG_PATH"]).mkdir(mode=0o700, parents=True, exist_ok=True)
    return home


def use_stack(stack: str) -> Any:
    """Make the stack `stacks/<stack>.yaml` (or a file) the active one; returns what its file says."""
    from zenml.integrations.registry import integration_registry
    from zenml.utils import source_utils

    from stacks.apply import apply_stack, require_server
    from stacks.config import load_stack, stack_file

    # Compiling a pipeline imports every library that ZenML has materializers for (scikit-learn, torch: 40 % of a short
    # command's time). What flows between our steps has materializers of its own.
    integration_registry.activate_integrations = lambda: None
    if not is_verbose():
        logging.getLogger("great_expectations").setLevel(logging.ERROR)
    source_utils.set_custom_source_root(str(project_root()))
    file = stack_file(stack)
    config = load_stack(file)
    require_server(file, config)
    apply_stack(file)
    return config


def run_pipeline(pipeline: Callable[..., Any], stack: str, **parameters: Any) -> Any:
    """Run a pipeline on a stack and return ZenML's run, its error raised.

    Raises:
        ConfigError: the stack is Kubeflow's, which runs what `pocketloop compile` writes.
    """
    from pocketloop.cli.runs import recorded
    from stacks.run_settings import with_runs

    refuse_kubeflow(stack, "")
    with recorded(Home(), str(getattr(pipeline, "name", "pipeline")), _subject(parameters)):
        return with_runs(pipeline, use_stack(stack), parameters)(**parameters)


def refuse_kubeflow(stack: str, cron: str) -> None:
    """Refuse to hand a pipeline to Kubeflow through ZenML, whose orchestrator mounts no home and asks for no GPU.

    Raises:
        ConfigError: the stack's orchestrator is Kubeflow; says how to compile instead.
    """
    from stacks.config import load_stack, stack_file

    orchestrator = load_stack(stack_file(stack)).components.get("orchestrator")
    if orchestrator is not None and orchestrator.flavor == "kubeflow":
        timed = f" --cron '{cron}'" if cron else ""
        raise ConfigError(
            f"stack {stack}: Kubeflow runs compiled files; "
            f"`pocketloop compile PIPELINE ADAPTER --stack {stack}{timed}` writes one and says how to start it"
        )


def _subject(parameters: dict[str, Any]) -> str:
    """What a run is about: the adapter of its recipe or argument, or else the base."""
    if "recipe" in parameters:
        return str(parameters["recipe"].adapter)
    if "base" in parameters:
        return str(parameters["base"].base)
    return str(parameters.get("adapter", ""))


def output_of(run: Any, step: str, name: str) -> Any:
    """A step's output in a finished run."""
    return run.steps[step].outputs[name][0].load()
