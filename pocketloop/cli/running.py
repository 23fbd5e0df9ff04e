"""Starting a pipeline: the environment it needs, the stack it runs on, and what to say when it ends."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pocketloop.contracts.home import Home, project_root

Stack = Annotated[str, typer.Option(help="A stack of stacks/, or the path of a stack file.")]


def environment() -> Home:
    """The project's home, with ZenML and MLflow pointed at it; must come before either is imported."""
    home = Home()
    home.root.mkdir(parents=True, exist_ok=True)
    os.environ["POCKETLOOP_HOME"] = str(home.root)
    os.environ["MLFLOW_TRACKING_URI"] = home.mlflow_uri
    os.environ.setdefault("ZENML_CONFIG_PATH", str(home.zenml))
    os.environ.setdefault("ZENML_LOGGING_VERBOSITY", "CRITICAL")
    os.environ.setdefault("ZENML_DISABLE_STEP_LOGS_STORAGE", "false")
    os.environ.setdefault("ZENML_ENABLE_RICH_TRACEBACK", "false")
    Path(os.environ["ZENML_CONFIG_PATH"]).mkdir(mode=0o700, parents=True, exist_ok=True)
    return home


def run_pipeline(pipeline: Callable[..., Any], stack: str, **parameters: Any) -> Any:
    """Run a pipeline on the stack `stacks/<stack>.yaml` (or a file) and return ZenML's run, its error raised."""
    from zenml.integrations.registry import integration_registry
    from zenml.utils import source_utils

    # Compiling a pipeline imports every library that ZenML has materializers for (scikit-learn, torch: 40 % of a short
    # command's time). What flows between our steps has materializers of its own.
    integration_registry.activate_integrations = lambda: None
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    source_utils.set_custom_source_root(str(project_root()))
    use_stack(stack)
    return pipeline(**parameters)


def use_stack(stack: str) -> None:
    """Bring ZenML in line with the stack `stacks/<stack>.yaml` (or a file), and make it the active one."""
    from stacks.apply import apply_stack

    apply_stack(stack_file(stack))


def stack_file(stack: str) -> Path:
    """Where a stack's file lies, given its name or its path."""
    return Path(stack) if stack.endswith((".yaml", ".yml")) else project_root() / "stacks" / f"{stack}.yaml"


def output_of(run: Any, step: str, name: str) -> Any:
    """A step's output in a finished run."""
    return run.steps[step].outputs[name][0].load()
