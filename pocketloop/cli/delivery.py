"""From an approval to every phone: `promote`, `watch`, `rollback`, and what the channels serve."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pocketloop.cli.completion import adapter_names
from pocketloop.cli.console import AsJson, emit, say, table
from pocketloop.cli.running import Stack, environment, output_of, run_pipeline
from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_delivery

if TYPE_CHECKING:
    from pocketloop.contracts.rollout import Promotion, Rollout

AdapterName = Annotated[str, typer.Argument(help="The adapter's name.", autocompletion=adapter_names)]
AsOf = Annotated[
    datetime | None, typer.Option(help="Act as of this moment (UTC), not now: for simulated fleets and replays.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: pocketloop promote functions")(promote)
    app.command(epilog="Examples: pocketloop watch    pocketloop watch functions --every 60")(watch)
    app.command(epilog='Example: pocketloop rollback functions --reason "complaints from the field"')(rollback)
    group = typer.Typer(help="What each channel serves now.", no_args_is_help=True)
    group.command("show", epilog="Example: pocketloop channel show functions --json")(show)
    app.add_typer(group, name="channel")


def promote(adapter: AdapterName, as_of: AsOf = None, stack: Stack = "local", as_json: AsJson = False) -> None:
    """Take the newest approved version to the fleet: verify, sign, publish, start the canary.

    Runs again after an interruption, or once the missing signatures are there, it finishes what it began. Refused
    versions and the reason of each stand in MLflow and below. With nothing to promote it does nothing.
    """
    home = environment()
    from pipelines.promote import promote as pipeline
    from pocketloop.cli.runs import note_result

    run = run_pipeline(pipeline, stack, adapter=adapter, as_of=_moment(as_of))
    promotion: Promotion = output_of(run, "start_canary", "started")
    note_result(home, "promote", adapter, promotion.state)
    for refusal in promotion.refused:
        say(f"refused   {refusal}")
    if as_json:
        emit(promotion)
        return
    name = f"{adapter}@{promotion.version}" if promotion.version else adapter
    say(f"[bold]{name}[/bold]: {promotion.state}; {promotion.detail}")
    if promotion.state == "started":
        say("  next      pocketloop watch   (on a schedule: it widens, holds or rolls back)")
        say(f"  serves    pocketloop channel show {adapter}")


def watch(
    adapter: Annotated[
        str, typer.Argument(help="One adapter; without it, every running rollout.", autocompletion=adapter_names)
    ] = "",
    every: Annotated[float, typer.Option(help="Minutes between looks; 0 looks once.")] = 0,
    as_of: AsOf = None,
    stack: Stack = "local",
    as_json: AsJson = False,
) -> None:
    """Look at the fleet's telemetry and decide: widen, hold, or roll back; sign again what expires soon."""
    home = environment()
    from pipelines.watch import watch as pipeline

    while True:
        run = run_pipeline(pipeline, stack, adapter=adapter, as_of=_moment(as_of))
        rollouts: list[Rollout] = output_of(run, "decide", "rollouts")
        if as_json:
            emit([rollout.model_dump(mode="json", exclude={"ladder"}) for rollout in rollouts])
        elif not rollouts:
            say("no rollout is running")
        else:
            for rollout in rollouts:
                last = rollout.decisions[-1]
                say(f"[bold]{rollout.adapter}@{rollout.version}[/bold]: {last.action.replace('_', ' ')}; {last.reason}")
                say(f"  page      {home.rollouts / rollout.rollout_id}.html")
        if not every:
            return
        time.sleep(every * 60)


def rollback(
    adapter: AdapterName,
    reason: Annotated[str, typer.Option(help="Why, for the version's history.")],
    base: Annotated[str, typer.Option(help="Digest (or its beginning) of the base, where several run.")] = "",
) -> None:
    """Take the running, or the last finished, rollout back by hand: devices return to the file they had before."""
    home = environment()
    from pocketloop.delivery.repository import Repository
    from pocketloop.delivery.rollouts import RolloutStore, roll_back_now
    from steps.announce import tell

    store = RolloutStore(home.rollouts)
    found = [r for r in store.all() if r.adapter == adapter and r.base_digest.startswith(base)]
    live = [r for r in found if r.state != "rolled_back"]
    if not live:
        raise DeliveryError(f"{adapter} has no rollout to take back; `pocketloop channel show {adapter}`")
    rollout = max(live, key=lambda r: r.started)
    if len({r.base_digest for r in live}) > 1 and not base:
        raise DeliveryError(f"{adapter} is served on several bases; name one with --base")
    roll_back_now(Repository.open(load_delivery(), home), store, rollout, reason, datetime.now(UTC))
    tell(home, rollout)
    back = rollout.previous[:12] if rollout.previous else "the base alone"
    say(f"[bold]{adapter}@{rollout.version}[/bold] is taken back; devices return to {back} with their next sync")


def show(
    adapter: Annotated[str, typer.Argument(help="One adapter; without it, all.", autocompletion=adapter_names)] = "",
    as_json: AsJson = False,
) -> None:
    """Show what every channel serves: stable and canary versions, share, running rollout."""
    from pocketloop.delivery.repository import Repository
    from pocketloop.delivery.rollouts import RolloutStore

    home = Home()
    repository = Repository.open(load_delivery(), home)
    approved = repository.approved()
    store = RolloutStore(home.rollouts)
    policies = [policy for policy in repository.policies() if adapter in ("", policy.adapter)]
    if as_json:
        emit([policy.model_dump(mode="json", by_alias=True) for policy in policies])
        return

    def name(digest: str | None) -> str:
        if digest is None:
            return "–"
        facts = approved.get(digest)
        return f"version {facts.version} ({digest[:12]})" if facts else f"revoked ({digest[:12]})"

    rows = []
    for policy in policies:
        running = store.running(policy.adapter, policy.base_digest)
        rung = f"rung {running.rung + 1} of {len(running.ladder.rungs)}" if running else "none running"
        share = f"{policy.canary_ppm / 10_000:g} %" if policy.canary_ppm else "–"
        stable = name(policy.stable) if policy.stable else "base alone"
        rows.append([policy.adapter, policy.base_digest[:12], stable, name(policy.canary), share, rung])
    table("", ["channel", "base", "stable", "canary", ">share", "rollout"], rows)


def _moment(as_of: datetime | None) -> str:
    return as_of.replace(tzinfo=UTC).isoformat() if as_of else ""
