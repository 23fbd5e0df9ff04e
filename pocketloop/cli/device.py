"""`pocketloop device`: the reference client, as one phone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketloop.cli.console import AsJson, emit, say
from pocketloop.cli.phone import BaseOption, Folder, device_id_of, own_repository, prepared_base, trusted_root
from pocketloop.contracts.errors import ConfigError, DeviceError
from pocketloop.contracts.home import Home, project_root
from pocketloop.contracts.loading import load_config

if TYPE_CHECKING:
    from pocketloop.device.chat import Chat
    from pocketloop.device.router import Reply
    from pocketloop.device.sync import Probing, SyncResult
    from pocketloop.export.base import PreparedBase


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The reference client: one phone.", no_args_is_help=True)
    group.command(
        epilog="Examples: pocketloop device sync --adapter functions\n\n"
        "pocketloop device sync --repository http://127.0.0.1:8080 --adapter intent --adapter functions --json"
    )(sync)
    group.command(epilog="Example: pocketloop device explain --adapter functions")(explain)
    group.command(
        epilog='Examples: pocketloop device chat    pocketloop device chat "wake me at seven" --no-cloud --json'
    )(chat)
    app.add_typer(group, name="device")


def sync(
    adapter: Annotated[list[str], typer.Option(help="Adapter to bring up to date; may be given several times.")],
    repository: Annotated[
        str | None, typer.Option(help="Address or folder of the signed repository; by default the project's own.")
    ] = None,
    base: BaseOption = "tiny",
    device_id: Annotated[
        str | None, typer.Option(help="Opaque id that decides the canary bucket; drawn once, then kept.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Root metadata as shipped with the app; kept from the first sync on.")
    ] = None,
    folder: Folder = None,
    probes: Annotated[bool, typer.Option(help="Run golden probes with llama.cpp before a file is swapped in.")] = True,
    collector: Annotated[
        str | None, typer.Option(help="Post what was counted to this address afterwards (.../telemetry).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch what the channels serve to this phone: verified, resumable, swapped at once, taken back when told.

    Whatever goes wrong has a name and leaves the phone with what it had; exit status 1 says that something did.
    """
    from pocketloop.device.sync import DeviceConfig, sync_all

    home = Home()
    place = folder or home.device
    prepared = prepared_base(home, base)
    name = device_id_of(place, device_id)
    with _probing(prepared, probes) as probe:
        device = DeviceConfig(
            folder=place,
            repository=repository or own_repository(home),
            device_id=name,
            base_digest=prepared.manifest.digest,
            root=trusted_root(home, place, root),
            probe=probe,
        )
        outcomes = sync_all(device, adapter)
    posted = _count_reverts(place, name, prepared.manifest.digest, adapter, collector)
    if as_json:
        emit({"device_id": name, "adapters": [_as_data(key, value) for key, value in outcomes.items()], **posted})
    else:
        for key, outcome in outcomes.items():
            _tell(key, outcome)
        if posted:
            say(f"telemetry: {posted['posted']} reports posted, {posted['waiting']} wait {posted['problem']}")
        say(f"state: {place}; why: pocketloop device explain --adapter {adapter[0]}")
    if any(isinstance(outcome, DeviceError) for outcome in outcomes.values()):
        raise typer.Exit(1)


def explain(
    adapter: Annotated[
        list[str] | None, typer.Option(help="Adapter to explain; by default every one that this phone synced.")
    ] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Tell why this phone runs the version it runs: bucket, arm, policy, what was refused here. Needs no network."""
    from pocketloop.device.explain import explain as tell
    from pocketloop.device.store import Store

    place = folder or Home().device
    names = adapter or sorted(Store(place).read().adapters)
    if not names:
        raise DeviceError(f"{place}: this phone has never synced; run `pocketloop device sync --adapter NAME`")
    known = place / "device-id"
    device_id = known.read_text(encoding="utf-8").strip() if known.is_file() else ""
    found = [tell(place, device_id, name) for name in names]
    if as_json:
        emit([item.model_dump(mode="json", by_alias=True) for item in found])
        return
    for item in found:
        say(f"[bold]{item.adapter}[/bold] on device {item.device_id}")
        for line in item.story:
            say(f"  {line}")


def chat(
    message: Annotated[str | None, typer.Argument(help="Answer this one message; without it, a conversation.")] = None,
    base: BaseOption = "tiny",
    folder: Folder = None,
    router: Annotated[
        Path | None, typer.Option(help="Routes, threshold and cloud; by default configs/router.yaml.")
    ] = None,
    cloud: Annotated[bool, typer.Option(help="Whether what is said may leave this phone.")] = True,
    collector: Annotated[str | None, typer.Option(help="Post telemetry to this address (.../telemetry).")] = None,
    as_json: AsJson = False,
) -> None:
    """Talk to this phone: the gateway picks an adapter that was synced, or the cloud, and says which and why.

    In a conversation, `+` and `-` rate the last answer, `/new` forgets what was said, an empty line ends it.
    """
    from pocketloop.device.chat import chat_session
    from pocketloop.device.router import RouterConfig

    if as_json and message is None:
        raise ConfigError("--json answers one message: give it as an argument")
    home = Home()
    place = folder or home.device
    prepared = prepared_base(home, base)
    config = load_config(router or project_root() / "configs" / "router.yaml", RouterConfig)
    with chat_session(
        place,
        device_id_of(place),
        prepared.quantized,
        prepared.tokenizer,
        prepared.manifest.digest,
        config,
        cloud_allowed=cloud,
        collector=collector,
    ) as session:
        if message is not None:
            reply = session.say(message, None if as_json else _stream)
            if as_json:
                emit(asdict(reply))
            else:
                _tell_source(reply)
            return
        _converse(session)


def _converse(session: "Chat") -> None:
    """Read lines until an empty one, or the end of the input."""
    say("[dim]+ and - rate an answer, /new forgets the conversation, an empty line ends it[/dim]")
    while True:
        try:
            said = input("you> ").strip()
        except EOFError:
            return
        if not said:
            return
        if said == "/new":
            session.forget()
        elif said in ("+", "-"):
            say("noted" if session.rate(said == "+") else "there is no answer of an adapter to rate")
        else:
            _tell_source(session.say(said, _stream))


def _stream(piece: str | None) -> None:
    """Print an answer as it comes; what the cloud took back is told."""
    print("\n(taken back)" if piece is None else piece, end="\n" if piece is None else "", flush=True)


def _tell_source(reply: "Reply") -> None:
    from rich.markup import escape

    source = reply.skill or ("the base alone" if reply.source == "device" else reply.source)
    unsure = ", not sure" if reply.low_confidence else ""
    print()
    say(f"[dim]{source}{unsure}; {escape(reply.why)}; {reply.latency_ms:.0f} ms[/dim]")


@contextmanager
def _probing(base: "PreparedBase", wanted: bool) -> Iterator["Probing | None"]:
    """Golden probes on llama.cpp; the base is loaded when the first file is to be proven, and not before."""
    if not wanted:
        yield None
        return
    from pocketloop.contracts.delivery import Companion
    from pocketloop.device.runtime import Runtime

    loaded: list[Runtime] = []

    def probe(file: Path, companion: Companion) -> int:
        if not loaded:
            loaded.append(Runtime(base.quantized, base.tokenizer, base_digest=base.manifest.digest))
        return loaded[0].run_probes(file, companion)

    try:
        yield probe
    finally:
        for runtime in loaded:
            runtime.close()


def _count_reverts(
    folder: Path, device_id: str, base_digest: str, adapters: list[str], collector: str | None
) -> dict[str, object]:
    """Hand what the client gave up by itself to telemetry, and post it if an address is given."""
    from pocketloop.device.health import take_reverts
    from pocketloop.device.store import Store
    from pocketloop.device.telemetry import Recorder, Used

    recorder = Recorder(folder, device_id)
    slots = Store(folder).read().adapters
    for adapter in adapters:
        policy = slots[adapter].policy if adapter in slots else None
        for digest, times in take_reverts(folder, adapter).items():
            generation = policy.generation if policy else 0
            used = Used(adapter=adapter, digest=digest, base_digest=base_digest, generation=generation)
            recorder.reverted(used, times)
    if collector is None:
        return {}
    done = recorder.post(collector)
    return {"posted": done.confirmed, "waiting": done.waiting, "problem": done.problem}


def _as_data(adapter: str, outcome: "SyncResult | DeviceError") -> dict[str, object]:
    if isinstance(outcome, DeviceError):
        retry = getattr(outcome, "retry", False)
        return {"adapter": adapter, "error": type(outcome).__name__, "reason": str(outcome), "retry": retry}
    return outcome.model_dump(mode="json")


def _tell(adapter: str, outcome: "SyncResult | DeviceError") -> None:
    if isinstance(outcome, DeviceError):
        say(f"[bold]{adapter}[/bold] [red]{type(outcome).__name__}[/red]: {outcome}")
        return
    runs = outcome.installed[:12] if outcome.installed else "the base alone"
    because = f": {outcome.reason}" if outcome.reason else ""
    say(f"[bold]{adapter}[/bold] {outcome.action}{because}")
    say(
        f"  runs {runs}, arm {outcome.arm}, policy generation {outcome.generation}; "
        f"{outcome.requests} requests, {outcome.bytes / 1e6:.2f} MB"
    )
