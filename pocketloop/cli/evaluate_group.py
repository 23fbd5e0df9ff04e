"""`pocketloop evaluate`: an adapter on somebody's own data; its subcommands plan, and run public suites."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pocketloop.cli.completion import adapter_names
from pocketloop.cli.console import AsJson, emit, say, table
from pocketloop.cli.review import split_version
from pocketloop.contracts.home import Home

if TYPE_CHECKING:
    from pocketloop.models.answering import Answered


class _AdapterOrCommand(TyperGroup):
    """What is no subcommand is what `run` takes: `evaluate functions --data F` is `evaluate run functions --data F`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


evaluate_app = typer.Typer(cls=_AdapterOrCommand, no_args_is_help=True, rich_markup_mode=None)


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    epilog = "Example: pocketloop evaluate functions --data mine.jsonl --json"
    evaluate_app.command(epilog=epilog)(run)
    app.add_typer(
        evaluate_app,
        name="evaluate",
        help="Score an adapter on somebody's data (`evaluate ADAPTER --data FILE`), or run a subcommand.",
        epilog=epilog,
    )


def run(
    adapter: Annotated[
        str, typer.Argument(help="ADAPTER, ADAPTER@VERSION, or the folder of a bundle.", autocompletion=adapter_names)
    ],
    data: Annotated[str, typer.Option(help="Example file (.jsonl, .jsonl.gz) or demo:// address.")],
    limit: Annotated[int | None, typer.Option(help="Use the first N examples only.")] = None,
    on: Annotated[
        str,
        typer.Option(
            help="What answers: llama.cpp, as on a phone; transformers; the folder of a lowered program (.pte); or the "
            "OpenAI-compatible address where the adapter, or another model, is served."
        ),
    ] = "llama.cpp",
    model: Annotated[str, typer.Option(help="With an address: the model's name there.")] = "",
    api_key_env: Annotated[str, typer.Option(help="With an address: environment variable that holds the key.")] = "",
    every_turn: Annotated[
        bool, typer.Option("--every-turn", help="Ask every turn of a conversation, and score dialogues as a whole.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score an adapter on somebody's data: its exported files, as a phone runs them, unless --on says otherwise."""
    from pocketloop.cli.evaluating import decided_before, evaluate_bundle
    from pocketloop.data.example_files import explain
    from pocketloop.evaluation.slices import describe
    from pocketloop.registry.mlflow_store import candidate, fetch_bundle

    with ExitStack() as held:
        folder = Path(adapter)
        if not folder.is_dir():
            folder = held.enter_context(fetch_bundle(Home(), candidate(Home(), *split_version(adapter))))
        scored = evaluate_bundle(Home(), folder, data, limit, on, model, api_key_env, _tell, every_turn)
        decided = decided_before(Home(), folder, data)
    result, worst, refused = scored
    metrics = {name: estimate.value for name, estimate in result.metrics.items()}
    if as_json:
        intervals = {name: [estimate.low, estimate.high] for name, estimate in result.metrics.items()}
        n = next(iter(result.metrics.values())).n
        told: dict[str, Any] = {
            "refused": len(refused),
            "failures": result.failures,
            "seconds": round(result.seconds, 2),
        }
        told["decided_before"] = decided
        if worst:
            told["worst_slice"] = worst.model_dump(mode="json")
        emit({"n": n, **metrics, "intervals": intervals, **told})
        return
    rows = [[name, f"{e.value:.3f}", f"{e.low:.3f} – {e.high:.3f}", str(e.n)] for name, e in result.metrics.items()]
    table(f"{adapter} on {data}", ["metric", ">value", "95 % interval", ">n"], rows)
    for reason, count in result.failures.items():
        say(f"{count} not answered, and counted as wrong: {reason}")
    if worst:
        say(f"Worst slice {describe(worst)}")
    if decided:
        say(
            f"[yellow]used[/yellow]: the gates of {len(decided)} versions were judged on these very examples "
            f"({', '.join(decided[-3:])}); what was chosen on them scores too well here (docs/gates.md)"
        )
    if refused:
        say(f"{len(refused)} lines of the file could not be used, and are in no number above: {explain(refused)}")


def _tell(so_far: "Answered") -> None:
    """On standard error: what is printed for machines stays whole."""
    if so_far.done < so_far.total:
        typer.echo(f"  {so_far}", err=True)
