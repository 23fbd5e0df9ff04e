"""`pocketloop shapes`: one adapter of many roles, or a gateway with specialists, on the same messages."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketloop.cli.completion import adapter_names
from pocketloop.cli.console import AsJson, emit, say, table
from pocketloop.cli.phone import prepared_base
from pocketloop.cli.review import split_version
from pocketloop.contracts.errors import ConfigError, ModelError
from pocketloop.contracts.home import Home, project_root
from pocketloop.contracts.loading import load_catalogue, load_config, load_device_classes

if TYPE_CHECKING:
    from pocketloop.contracts.events import Conversation
    from pocketloop.contracts.examples import Example
    from pocketloop.contracts.recipe import Recipe
    from pocketloop.device.runtime import Skill
    from pocketloop.evaluation.shapes import ShapesReport


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Compare the shapes of an assistant.", no_args_is_help=True)
    example = "Example: pocketloop shapes compare universal --hybrid gateway,functions,wellness,math,logistics --n 100"
    group.command("compare", epilog=example)(compare)
    example = "Example: pocketloop shapes fit universal --hybrid gateway,functions,wellness,math --base gemma-3-1b-it"
    group.command("fit", epilog=example)(fit)
    app.add_typer(group, name="shapes")


def compare(
    universal: Annotated[
        str, typer.Argument(help="The adapter of many roles: ADAPTER[@VERSION].", autocompletion=adapter_names)
    ],
    hybrid: Annotated[str, typer.Option(help="The gateway, then its specialists, with commas between them.")],
    n: Annotated[int, typer.Option("--n", min=2, help="Held-out messages of each agent, at most.")] = 100,
    folder: Annotated[
        Path | None, typer.Option(help="Take adapters from FOLDER/NAME (bundles) instead of the registry.")
    ] = None,
    router: Annotated[
        Path | None, typer.Option(help="Threshold and routes; by default configs/router-hybrid.yaml.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for shapes.html and shapes.json.")] = Path("shapes"),
    as_json: AsJson = False,
) -> None:
    """Send the same held-out messages through both shapes, and write what each gets right, ships and costs.

    The messages are those of the universal recipe's evaluation sets, by role, and what the gateway's own set calls out
    of scope. From the registry, the champion is taken, or the newest version where nothing was ever promoted.
    """
    from pocketloop.contracts.files import write_json
    from pocketloop.device.router import RouterConfig
    from pocketloop.device.runtime import Runtime
    from pocketloop.evaluation.shapes import Said, Shapes, compare_shapes
    from pocketloop.evaluation.shapes_page import write_shapes_page
    from pocketloop.export.gguf_files import shared_file

    gateway, *specialists = [name.strip() for name in hybrid.split(",") if name.strip()]
    if not specialists:
        raise ConfigError(f"--hybrid {hybrid}: name the gateway and at least one specialist, with commas between them")
    config = load_config(router or project_root() / "configs" / "router-hybrid.yaml", RouterConfig)
    with ExitStack() as held:
        bundles = {name: _bundle(held, name, folder) for name in (universal, gateway, *specialists)}
        recipes = {name: _recipe(bundle) for name, bundle in bundles.items()}
        base = prepared_base(Home(), recipes[universal].base)
        skills = {name: _skill(bundle, base.manifest.digest) for name, bundle in bundles.items()}
        runtime = held.enter_context(
            Runtime(base.quantized, base.tokenizer, base_digest=base.manifest.digest, context=1024)
        )

        def ask(adapter: str, conversation: "Conversation", role: str) -> Said:
            started, skill = time.perf_counter(), skills[adapter]
            # As the router on the phone: adapters for single requests have never seen a conversation.
            asked = conversation if skill.companion.task == "chat" else conversation[-1:]
            answer = runtime.answer(asked, skill, role=role)
            return Said(answer.text, answer.confidence, time.perf_counter() - started)

        named = {split_version(name)[0]: name for name in specialists}
        routes = {intent: named[route] for intent, route in config.routes.items() if route in named}
        report = compare_shapes(
            Shapes(universal, gateway, routes, config.threshold),
            _messages(recipes[universal], recipes[gateway], n),
            ask,
            {name: shared_file(bundle, name).stat().st_size for name, bundle in bundles.items()},
            base.quantized.stat().st_size,
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "shapes.json", report)
    write_shapes_page(out / "shapes.html", report)
    if as_json:
        emit(report)
        return
    _show(report)
    say(f"{out / 'shapes.html'} shows the comparison, {out / 'shapes.json'} holds its numbers")


def fit(
    universal: Annotated[
        str, typer.Argument(help="The adapter of many roles: ADAPTER[@VERSION].", autocompletion=adapter_names)
    ],
    hybrid: Annotated[str, typer.Option(help="The gateway, then its specialists, with commas between them.")],
    base: Annotated[
        list[str] | None,
        typer.Option(help="Count on this base instead, from published sizes (configs/bases/NAME.yaml); repeatable."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Take adapters from FOLDER/NAME (bundles) instead of the registry.")
    ] = None,
    context: Annotated[int | None, typer.Option(min=64, help="Tokens held; by default the universal recipe's.")] = None,
    pte: Annotated[str, typer.Option(help="Precisions of the .pte files, linear/embedding.")] = "8da4w/8w",
    out: Annotated[Path, typer.Option(help="Folder for fit.html and fit.json.")] = Path("shapes"),
    as_json: AsJson = False,
) -> None:
    """Say which classes of phones could hold which shape, in GGUF and .pte, by memory and by the memory's bandwidth.

    Without --base the registered files are loaded and measured here; .pte, and other bases, are counted from sizes.
    """
    from pocketloop.cli.fitting import counted, measured
    from pocketloop.contracts.files import write_json
    from pocketloop.export.compatibility import compatibility
    from pocketloop.export.report import write_compatibility_page

    names = [name.strip() for name in hybrid.split(",") if name.strip()]
    if len(names) < 2:
        raise ConfigError(f"--hybrid {hybrid}: name the gateway and at least one specialist, with commas between them")
    assemblies = []
    if base:
        for name in base:
            assemblies += counted(universal, names, name, context, pte)
    else:
        with ExitStack() as held:
            bundles = {name: _bundle(held, name, folder) for name in (universal, *names)}
            assemblies += measured(universal, names, bundles, context)
        assemblies += [found for found in counted(universal, names, None, context, pte) if found.format == "pte"]
    report = compatibility(assemblies, load_device_classes())
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "fit.json", report)
    write_compatibility_page(out / "fit.html", report)
    if as_json:
        emit(report)
        return
    rows = [
        [
            f"{found.shape} {found.format}",
            f"{found.base} {found.quantization}",
            f"{found.storage_bytes / 1e6:,.0f}",
            f"{found.measure.resident_bytes / 1e6:,.0f}",
            *(f"{p.standing} {p.tokens_per_second:,.0f}/s" for p in projections),
        ]
        for found, projections in zip(report.assemblies, report.projections, strict=True)
    ]
    table("Projected, measured on no phone", ["shape", "base", ">MB stored", ">MB held", *report.devices], rows)
    say(f"{out / 'fit.html'} shows the matrix, {out / 'fit.json'} holds its numbers")


def _bundle(held: ExitStack, name: str, folder: Path | None) -> Path:
    adapter, version = split_version(name)
    if folder is not None:
        found = folder / adapter
        if not found.is_dir():
            raise ModelError(f"{found} does not exist; train {adapter}, or leave --folder out")
        return found
    from pocketloop.registry.mlflow_store import candidate, champion, fetch_bundle

    registered = None if version else champion(Home(), adapter)
    return held.enter_context(fetch_bundle(Home(), registered or candidate(Home(), adapter, version)))


def _recipe(bundle: Path) -> "Recipe":
    from pocketloop.contracts.recipe import Recipe

    return Recipe.model_validate_json((bundle / "recipe.json").read_text(encoding="utf-8"))


def _skill(bundle: Path, base_digest: str) -> "Skill":
    from pocketloop.contracts.files import sha256_file
    from pocketloop.device.companion import companion_of
    from pocketloop.device.runtime import Skill
    from pocketloop.device.telemetry import Used
    from pocketloop.export.gguf_files import shared_file

    companion = companion_of(bundle)
    file = shared_file(bundle, companion.adapter)
    used = Used(adapter=companion.adapter, digest=sha256_file(file), base_digest=base_digest)
    return Skill(used, file, companion)


def _messages(universal: "Recipe", gateway: "Recipe", n: int) -> dict[str, list["Example"]]:
    """Held-out messages of each role of the universal adapter, and those out of the gateway's scope."""
    from pocketloop.data.example_files import read_examples
    from pocketloop.evaluation.shapes import OUT_OF_SCOPE

    sets: dict[str, list[Example]] = {}
    for wanted in universal.evaluation.sets:
        if wanted.role:
            sets.setdefault(wanted.role, []).extend(read_examples(wanted.uri, "chat", wanted.role)[0][:n])
    if not sets:
        raise ConfigError(
            f"recipe {universal.adapter}: evaluation.sets names no role, so there are no messages by agent"
        )
    catalogue = load_catalogue(gateway)
    for wanted in gateway.evaluation.sets:
        found = read_examples(wanted.uri, "intent")[0]
        beyond = [example for example in found if catalogue and example.answer.content == catalogue.refusal]
        sets.setdefault(OUT_OF_SCOPE, []).extend(beyond[:n])
    return sets


def _show(report: "ShapesReport") -> None:
    rows = []
    for agent in report.messages:
        scores = [variant.agents.get(agent) for variant in report.variants]
        rows.append([agent, *(f"{score.right.value:.3f}" if score else "–" for score in scores)])
    rows += [
        ["all agents", *(f"{variant.overall.value:.3f}" for variant in report.variants)],
        ["MB shipped", *(f"{variant.shipped_bytes / 1e6:.2f}" for variant in report.variants)],
        ["swaps a message", *(f"{variant.swaps:.2f}" for variant in report.variants)],
        ["ms, median", *(f"{variant.milliseconds:.0f}" for variant in report.variants)],
    ]
    table("", ["right answers", *(f">{variant.variant}" for variant in report.variants)], rows)
