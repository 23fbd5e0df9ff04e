"""`pocketloop compile`: a pipeline as the file that Kubeflow runs."""

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from pocketloop.cli.console import say
from pocketloop.cli.recipes import Overrides
from pocketloop.cli.running import Stack, environment, use_stack
from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.loading import load_base_config, load_catalogue, load_recipe

PIPELINES = ("curate", "train", "retrain", "promote", "watch", "prepare-base")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    example = "Example: pocketloop compile retrain functions --stack kubeflow --cron '0 3 * * *' --out retrain.yaml"
    app.command("compile", epilog=example)(compile_)


def compile_(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help=f"One of {', '.join(PIPELINES)}.")],
    adapter: Annotated[str, typer.Argument(help="A recipe's name or path; for prepare-base, a base's.")] = "",
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("pipeline.yaml"),
    stack: Stack = "kubeflow",
    cron: Annotated[str, typer.Option(help="Five fields; the recurring run is written beside the file.")] = "",
    overrides: Overrides = None,
) -> None:
    """Write a pipeline as Kubeflow's IR, for a cluster to run; nothing is started, built or uploaded.

    The pipeline's configuration goes to the ZenML server that ZENML_STORE_URL names, which the containers ask for it.
    The file holds no secret: it names the Kubernetes Secrets and the volume that the stack file declares.
    """
    function, parameters = _pipeline(pipeline, adapter, overrides)
    from stacks.kubeflow import compile_pipeline, kubeflow_cron, write_recurring_run

    if cron:
        kubeflow_cron(cron)
    name = "-".join(part for part in (pipeline, Path(adapter).stem) if part)
    config = _applied(stack)
    steps = compile_pipeline(function(), config, name, out, **parameters)
    say(f"{out}: {name}, {len(steps)} steps, each a container")
    for step in steps:
        say(f"  {step.name:<18} {step.image}  {step.resources}, {step.retries} retries")
    home, secrets = config.cluster.home, ", ".join(config.cluster.secrets) or "none"
    say(f"every step mounts volume claim {home.claim} at {home.path}; Kubernetes Secrets: {secrets} (docs/cluster.md)")
    say(f"  once      kfp run create --experiment-name pocketloop --run-name {name} --package-file {_quoted(out)}")
    if cron:
        recurring = out.with_suffix(".recurring.yaml")
        write_recurring_run(recurring, name, cron)
        say(f"{recurring}: {kubeflow_cron(cron)} (seconds first), one run at a time")
        say(
            f"  schedule  kfp recurring-run create --experiment-name pocketloop --job-name {name} --max-concurrency 1 "
            f"--no-catchup --cron-expression '{kubeflow_cron(cron)}' --pipeline-package-path {_quoted(out)}"
        )


def _pipeline(name: str, adapter: str, overrides: list[str] | None) -> tuple[Any, dict[str, Any]]:
    """What imports the pipeline, and its parameters: everything named in them is checked before that."""
    if name not in PIPELINES:
        raise ConfigError(f"unknown pipeline {name!r}; known: {', '.join(PIPELINES)}")
    if not adapter and name != "watch":
        raise ConfigError(f"{name} needs {'a base' if name == 'prepare-base' else 'an adapter'}: give its name")
    if overrides and name not in ("curate", "train", "retrain"):
        raise ConfigError(f"{name} reads no recipe: --set has nothing to override")
    parameters: dict[str, Any] = {"adapter": adapter, "as_of": ""}
    if name == "prepare-base":
        from pocketloop.contracts.recipe import GgufConfig

        parameters = {"base": load_base_config(adapter), "gguf": GgufConfig()}
    elif name not in ("promote", "watch"):
        recipe = load_recipe(adapter, overrides)
        load_catalogue(recipe)
        base = load_base_config(recipe.base)
        parameters = {"recipe": recipe} if name == "curate" else {"recipe": recipe, "base": base}

    def function() -> Any:
        from importlib import import_module

        module = name.replace("-", "_")
        return getattr(import_module(f"pipelines.{module}"), module)

    return function, parameters


def _applied(stack: str) -> Any:
    """Make the stack the active one; gives what its file says."""
    from stacks.config import load_stack, stack_file

    home, file = environment(), stack_file(stack)
    config = load_stack(file)
    orchestrator = config.components.get("orchestrator")
    if orchestrator is None or orchestrator.flavor != "kubeflow" or config.cluster is None:
        raise ConfigError(
            f"{file}: only a stack with the kubeflow orchestrator and a `cluster` section can be compiled"
        )
    if find_spec("kfp") is None or find_spec("kfp.kubernetes") is None:
        raise ConfigError("compiling needs Kubeflow's packages: pip install 'pocketloop[cluster]'")
    for name, value in config.cluster.environment.items():
        if str(home.root) in value and config.cluster.home.path not in value:
            raise ConfigError(
                f"{file}: no container reaches {value}, which lies on this machine: set {name} to a server"
            )
    return use_stack(stack)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
