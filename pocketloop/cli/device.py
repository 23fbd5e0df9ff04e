"""`pocketloop device`: the reference client, as one phone."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketloop.cli.console import AsJson, emit, say
from pocketloop.contracts.errors import ConfigError, DeviceError, ModelError
from pocketloop.contracts.files import atomic_file
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_delivery

if TYPE_CHECKING:
    from pocketloop.device.sync import Probing, SyncResult
    from pocketloop.export.base import PreparedBase

Folder = Annotated[
    Path | None, typer.Option(help="The phone's own folder; by default `device/` in the project's state.")
]
BaseOption = Annotated[str, typer.Option(help="The base on this phone: a name of configs/bases/, or its digest.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The reference client: one phone.", no_args_is_help=True)
    group.command(
        epilog="Examples: pocketloop device sync --adapter functions\n\n"
        "pocketloop device sync --repository http://127.0.0.1:8080 --adapter intent --adapter functions --json"
    )(sync)
    group.command(epilog="Example: pocketloop device explain --adapter functions")(explain)
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
    name = _device_id(place, device_id)
    with _probing(prepared, probes) as probe:
        device = DeviceConfig(
            folder=place,
            repository=repository or _own_repository(home),
            device_id=name,
            base_digest=prepared.manifest.digest,
            root=_root(home, place, root),
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


def prepared_base(home: Home, name: str) -> "PreparedBase":
    """The prepared base with this name (the newest of several) or digest.

    Raises:
        ModelError: none is prepared here.
    """
    from pocketloop.export.base import open_base

    folders = sorted(home.bases.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in folders:
        found = open_base(path.parent)
        if name in (found.manifest.base, found.manifest.digest):
            return found
    raise ModelError(f"base {name!r} is not prepared in {home.bases}; run `pocketloop prepare-base {name}`")


def _own_repository(home: Home) -> str:
    address = load_delivery().repository or str(home.cdn)
    if "://" in address and not address.startswith(("http://", "https://")):
        raise ConfigError(
            f"phones read the repository over HTTP, not from {address}: give --repository the address of its CDN"
        )
    return address


def _root(home: Home, folder: Path, given: Path | None) -> bytes:
    """The root that this phone trusts: given now, kept from an earlier sync, or of the project's own repository."""
    kept = folder / "root.json"
    if given is not None:
        if not given.is_file():
            raise ConfigError(f"--root {given}: no such file")
        data = given.read_bytes()
    elif kept.is_file():
        return kept.read_bytes()
    else:
        from pocketloop.delivery.repository import Repository

        data = Repository.open(load_delivery(), home).root_bytes()
    with atomic_file(kept) as temporary:
        temporary.write_bytes(data)
    return data


def _device_id(folder: Path, given: str | None) -> str:
    path = folder / "device-id"
    if given is None and path.is_file():
        return path.read_text(encoding="utf-8").strip()
    name = given or uuid.uuid4().hex
    with atomic_file(path) as temporary:
        temporary.write_text(name + os.linesep, encoding="utf-8")
    return name


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
