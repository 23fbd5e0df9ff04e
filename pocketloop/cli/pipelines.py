"""The pipelines as commands: prepare-base, curate, train, retrain."""

import time
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from pocketloop.cli.completion import base_names
from pocketloop.cli.console import emit, say
from pocketloop.cli.news import counted, news_of, read_files, remember
from pocketloop.cli.recipes import Adapter, Overrides
from pocketloop.cli.running import Stack, environment, output_of, run_pipeline
from pocketloop.contracts.errors import GateFailed
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_base_config, load_catalogue, load_recipe
from pocketloop.contracts.names import GgufQuantization
from pocketloop.schedules.holding import held

if TYPE_CHECKING:
    from pocketloop.contracts.recipe import Recipe
    from pocketloop.registry.mlflow_store import Candidate

IfNew = Annotated[
    int, typer.Option(min=0, metavar="N", help="Do nothing below N new examples since the adapter's last run.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the candidate as JSON on the last line.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: pocketloop retrain functions --set train.stages.0.sft.epochs=1")(retrain)
    app.command(epilog="Example: pocketloop curate intent")(curate)
    app.command(epilog="Example: pocketloop train functions --set train.lora.r=8")(train)
    app.command("prepare-base", epilog="Example: pocketloop prepare-base tiny")(prepare_base)


def retrain(
    adapter: Adapter,
    overrides: Overrides = None,
    stack: Stack = "local",
    as_json: AsJson = False,
    if_new: IfNew = 0,
) -> None:
    """The main job: curate the newest data, train, export, judge, and register a candidate for review.

    Stages whose inputs have not changed are taken from the run before. The exit status is 0 when the candidate
    passed its gates, 3 when it was registered without passing, 75 when another process runs this adapter, 1 or 2 when
    the run could not be finished.
    """
    recipe = checked(adapter, overrides)
    with held(Home(), recipe.adapter, f"pocketloop retrain {recipe.adapter}"):
        if if_new:
            news = news_of(Home(), recipe)
            if news.total < if_new:
                print(f"{recipe.adapter}: {counted(news)} since its last run, {if_new} are asked for; nothing is done")
                return
        _run("retrain", recipe, stack, as_json)


def train(adapter: Adapter, overrides: Overrides = None, stack: Stack = "local", as_json: AsJson = False) -> None:
    """Train on the newest dataset release, without collecting anything new. The exit status is that of `retrain`."""
    recipe = checked(adapter, overrides)
    with held(Home(), recipe.adapter, f"pocketloop train {recipe.adapter}"):
        _run("train", recipe, stack, as_json)


def curate(adapter: Adapter, overrides: Overrides = None, stack: Stack = "local") -> None:
    """Collect, scrub, validate, label and freeze a dataset release, without training."""
    recipe = checked(adapter, overrides)
    home = environment()
    with held(home, recipe.adapter, f"pocketloop curate {recipe.adapter}"):
        from pipelines.curate import curate as pipeline
        from pocketloop.cli.runs import note_result

        started = time.perf_counter()
        run = run_pipeline(pipeline, stack, recipe=recipe)
    _timing(run, time.perf_counter() - started)
    digest = str(output_of(run, "release", "release").digest)
    note_result(home, "curate", recipe.adapter, f"release {digest[:12]}")
    say(f"release: {home.releases / digest}")
    _warn_of_spent_sets(home, recipe)


def prepare_base(
    base: Annotated[
        str,
        typer.Argument(help="A base's name (configs/bases/NAME.yaml) or the path of one.", autocompletion=base_names),
    ],
    quantization: Annotated[str, typer.Option(help=f"One of {', '.join(get_args(GgufQuantization))}.")] = "Q4_K_M",
    stack: Stack = "local",
) -> None:
    """Fetch or build a base, convert and quantize it once, and record its golden probes and digest."""
    from pocketloop.contracts.recipe import GgufConfig

    config = load_base_config(base)
    gguf = GgufConfig.model_validate({"base": quantization})
    home = environment()
    from pipelines.prepare_base import prepare_base as pipeline

    run_pipeline(pipeline, stack, base=config, gguf=gguf)
    say(f"prepared bases: {home.bases}")


def checked(adapter: str, overrides: list[str] | None) -> "Recipe":
    """The recipe, with everything it names, checked before anything slow starts."""
    recipe = load_recipe(adapter, overrides)
    load_base_config(recipe.base)
    load_catalogue(recipe)
    return recipe


def _warn_of_spent_sets(home: Home, recipe: "Recipe") -> None:
    """Say so where the next candidate would be judged on a set that has chosen too many already."""
    from pocketloop.evaluation.spent import smallest_margin, spent_warning
    from pocketloop.registry.mlflow_store import candidates
    from pocketloop.registry.set_uses import newest_uses
    from pocketloop.tasks.tasks import TaskSpec

    if not recipe.evaluation.sets:  # then it is the release's own test split, and that is new
        return
    uses = [use for use in newest_uses(home, recipe.adapter) if use.set == recipe.evaluation.sets[0].name]
    if not uses:
        return
    share = candidates(home, recipe.adapter)[0].metrics.get(TaskSpec.of(recipe, None).metrics[0], 0.5)
    for use in uses:
        if warning := spent_warning(use, share, smallest_margin(recipe)):
            say(f"[yellow]spent[/yellow]: {warning}")


def _run(name: str, recipe: "Recipe", stack: str, as_json: bool) -> None:
    found = register_candidate(name, recipe, stack)
    if as_json:
        emit(found)
    if found.verdict != "pass":
        raise GateFailed(
            f"{found.adapter}@{found.version} did not pass its gates ({found.verdict}): "
            f"pocketloop review show {found.adapter}@{found.version}"
        )


def register_candidate(name: str, recipe: "Recipe", stack: str) -> "Candidate":
    """Run the pipeline `name` (`retrain` or `train`) to its registered candidate, and say where to look at it."""
    from pocketloop.cli.planned_export import planned_export_here

    for sentence in planned_export_here(recipe, load_base_config(recipe.base)).warnings:
        say(f"[yellow]export[/yellow] {sentence}")
    home = environment()
    from pocketloop.cli.runs import note_result
    from pocketloop.contracts.exports import NOT_FOR_PHONES
    from pocketloop.registry.mlflow_store import candidate, ensure_experiment

    started = time.perf_counter()
    print(f"{name} {recipe.adapter}: state in {home.root}", flush=True)
    files = read_files(recipe) if name == "retrain" else None
    ensure_experiment(home, name)
    if name == "retrain":
        from pipelines.retrain import retrain as pipeline
    else:
        from pipelines.train import train as pipeline
    run = run_pipeline(pipeline, stack, recipe=recipe, base=load_base_config(recipe.base))
    version = output_of(run, "register", "version")
    remember(home, recipe, run, files)
    found = candidate(home, recipe.adapter, version)
    note_result(home, name, recipe.adapter, f"{found.adapter}@{found.version}, verdict {found.verdict}")
    _timing(run, time.perf_counter() - started)
    say(f"[bold]{found.adapter}@{found.version}[/bold] is registered, verdict [bold]{found.verdict}[/bold]")
    say(f"  look      make ui   →  Models → {found.adapter} → Version {found.version} (card, scores, gates, files)")
    say(f"  trace     pocketloop trace {found.adapter}@{found.version}")
    if found.merged:
        say(f"  publish   not this one: {NOT_FOR_PHONES}")
        say(f"  export    pocketloop export {found.adapter}@{found.version}")
    elif found.verdict == "pass":
        say(f"  approve   on that page: Promote model → {found.adapter}.released")
    return found


def _timing(run: Any, wall: float) -> None:
    """Say how much of the run was reused, and how much of the time was orchestration."""
    steps = run.steps
    reused = [name for name, step in steps.items() if str(step.status) == "cached"]
    inside = sum(float(step.run_metadata.get("seconds", 0)) for name, step in steps.items() if name not in reused)
    say(
        f"{len(steps) - len(reused)} stages ran, {len(reused)} were reused; {wall:.0f} s in all, "
        f"{inside:.0f} s inside the stages, {max(0.0, 1 - inside / wall):.0%} orchestration"
    )
