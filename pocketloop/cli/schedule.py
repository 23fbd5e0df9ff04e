"""`pocketloop schedule`: retrain by night, and what became of the nights."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from pocketloop.cli.console import AsJson, emit, say, table
from pocketloop.cli.delivery import AdapterName, AsOf
from pocketloop.cli.recipes import Adapter
from pocketloop.cli.running import Stack
from pocketloop.contracts.errors import AdapterBusy, ConfigError, GateFailed, PocketloopError
from pocketloop.contracts.home import Home

if TYPE_CHECKING:
    from pocketloop.contracts.schedules import Night, Schedule
    from pocketloop.schedules.timers import Command


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Retrain by night: timers, and the log of the nights.", no_args_is_help=True)
    group.command("create", epilog='Example: pocketloop schedule create functions --cron "0 3 * * *" --if-new 50')(
        create
    )
    group.command("list", epilog="Example: pocketloop schedule list")(list_schedules)
    group.command("pause", epilog="Example: pocketloop schedule pause functions")(pause)
    group.command("resume", epilog="Example: pocketloop schedule resume functions")(resume)
    group.command("delete", epilog="Example: pocketloop schedule delete functions")(delete)
    group.command("run", epilog="Example, a night by day: pocketloop schedule run functions --now")(run)
    group.command("log", epilog="Example, what the last night printed: pocketloop schedule log functions --output")(log)
    app.add_typer(group, name="schedule")


def create(
    adapter: Adapter,
    cron: Annotated[str, typer.Option(help="Minute, hour, day, month, weekday.")],
    if_new: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Nights below N new examples do nothing (1).")
    ] = None,
    stack: Stack = "local",
    tz: Annotated[str | None, typer.Option(help="Time zone, e.g. Europe/Berlin; this machine's.")] = None,
) -> None:
    """Retrain an adapter whenever `--cron` says, in place of a former schedule of this adapter.

    This machine's systemd or cron starts the nights; on a stack whose orchestrator has schedules
    (Kubernetes), the orchestrator does, in UTC, and a night with nothing new reuses every stage.
    """
    from pocketloop.cli.cluster_schedules import ZONE, has_schedules
    from pocketloop.cli.pipelines import checked
    from pocketloop.contracts.schedules import Schedule
    from pocketloop.schedules.cron import check_cron, check_zone, local_zone, next_due
    from pocketloop.schedules.store import ScheduleStore
    from pocketloop.schedules.timers import starter_here, timer_of

    recipe, cron = checked(adapter, None), check_cron(cron)
    on_cluster = has_schedules(stack, cron)
    if on_cluster and (if_new is not None or tz not in (None, ZONE)):
        raise ConfigError(
            f"stack {stack} starts its nights itself: in UTC, and without --if-new (see docs/schedules.md)"
        )
    store = ScheduleStore(Home())
    schedule = Schedule(
        adapter=recipe.adapter,
        recipe=str(Path(adapter).resolve()) if Path(adapter).suffix in (".yaml", ".yml") else adapter,
        cron=cron,
        tz=ZONE if on_cluster else check_zone(tz or local_zone()),
        if_new=if_new or 1,
        stack=str(Path(stack).resolve()) if Path(stack).suffix in (".yaml", ".yml") else stack,
        starter="zenml" if on_cluster else starter_here(),
        since=datetime.now(UTC),
    )
    former = store.find(recipe.adapter)
    if former is not None and former.starter != schedule.starter:
        _stop(store.home, former)
    if on_cluster:
        from pocketloop.cli.cluster_schedules import create as hand_over

        hand_over(recipe, cron, stack)
        where = f"schedule of stack {stack}"
    else:
        where = timer_of(schedule.starter).install(schedule, _command(store.home, recipe.adapter))
    store.put(schedule)
    next_night = next_due(schedule.cron, schedule.tz, datetime.now(UTC))
    say(f"{recipe.adapter}: {'created' if former is None else 'changed'}; next night {_local(next_night, schedule.tz)}")
    say(f"  started by {where}")
    say(f"  log        pocketloop schedule log {recipe.adapter}")


def list_schedules(as_json: AsJson = False) -> None:
    """Show every schedule: when its next night is due, and what became of the last one."""
    from pocketloop.schedules.cron import next_due
    from pocketloop.schedules.store import ScheduleStore

    store, now = ScheduleStore(Home()), datetime.now(UTC)
    rows, found = [], []
    for schedule in store.all():
        due = None if schedule.paused else next_due(schedule.cron, schedule.tz, now)
        last = next(reversed(store.nights(schedule.adapter)), None)
        found.append(
            {
                **schedule.model_dump(mode="json"),
                "next": due.isoformat() if due else None,
                "last": last.model_dump(mode="json") if last else None,
            }
        )
        rows.append(
            [
                schedule.adapter,
                schedule.cron,
                schedule.starter,
                str(schedule.if_new),
                _local(due, schedule.tz) if due else "paused",
                _words(last) if last else "–",
            ]
        )
    if as_json:
        emit(found)
    elif rows:
        table("", ["adapter", "cron", "started by", ">new examples", "next night", "last night"], rows)
    else:
        say('no schedule; `pocketloop schedule create ADAPTER --cron "0 3 * * *"` makes one')


def pause(adapter: AdapterName) -> None:
    """Start no more nights; those that would have been due are not caught up."""
    from pocketloop.schedules.store import ScheduleStore

    store = ScheduleStore(Home())
    schedule = store.get(adapter)
    _stop(store.home, schedule, for_good=False)
    store.put(schedule.model_copy(update={"paused": True}))
    say(f"{adapter}: paused; `pocketloop schedule resume {adapter}` goes on")


def resume(adapter: AdapterName) -> None:
    """Go on after a pause, with the next night that is due from now on."""
    from pocketloop.schedules.cron import next_due
    from pocketloop.schedules.store import ScheduleStore
    from pocketloop.schedules.timers import timer_of

    store, now = ScheduleStore(Home()), datetime.now(UTC)
    schedule = store.get(adapter)
    if not schedule.paused:
        raise ConfigError(
            f"{adapter} is not paused; next night {_local(next_due(schedule.cron, schedule.tz, now), schedule.tz)}"
        )
    schedule = schedule.model_copy(update={"paused": False, "since": now})
    if schedule.starter == "zenml":
        from pocketloop.cli.cluster_schedules import set_active

        set_active(adapter, True)
    else:
        timer_of(schedule.starter).install(schedule, _command(store.home, adapter))
    store.put(schedule)
    say(f"{adapter}: next night {_local(next_due(schedule.cron, schedule.tz, now), schedule.tz)}")


def delete(adapter: AdapterName) -> None:
    """Remove a schedule and what starts it; the log of its nights stays."""
    from pocketloop.schedules.store import ScheduleStore

    store = ScheduleStore(Home())
    left = _stop(store.home, store.get(adapter))
    store.remove(adapter)
    say(f"{adapter}: its schedule is removed")
    if left:
        say(f"  {left}")


def run(
    adapter: AdapterName,
    now: Annotated[bool, typer.Option("--now", help="Run a night although none is due.")] = False,
    as_of: AsOf = None,
) -> None:
    """Run the night that is due, as the timer does: retrain if enough is new, and enter in the log what became of it.

    However many nights were missed, one makes up for them all. The exit status is 0 when there was nothing to do or the
    candidate passed, 3 when it did not pass, 75 when another process runs this adapter, 1 when a stage failed.
    """
    from pocketloop.cli.nightly import channels_of, load_environment, retrain_tonight
    from pocketloop.schedules.cron import next_due
    from pocketloop.schedules.night import run_night
    from pocketloop.schedules.store import ScheduleStore

    store = ScheduleStore(Home())
    schedule, moment = store.get(adapter), as_of.replace(tzinfo=UTC) if as_of else datetime.now(UTC)
    if schedule.starter == "zenml":
        raise ConfigError(
            f"{adapter}: stack {schedule.stack} starts its nights; `pocketloop retrain {adapter}` runs one here"
        )
    load_environment(store.home)
    night = run_night(store, schedule, moment, retrain_tonight, channels_of(schedule), force=now)
    if night is None:
        if sys.stdout.isatty() or as_of:  # a timer that looks often fills no file
            due = _local(next_due(schedule.cron, schedule.tz, moment), schedule.tz)
            say(f"{adapter}: {'paused' if schedule.paused else f'nothing is due before {due}'}")
        return
    say(f"{adapter}, night of {_local(night.due, schedule.tz)}: {_words(night)}; {night.seconds:.0f} s")
    _raise(night)


def log(
    adapter: AdapterName,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="How many nights.")] = 30,
    output: Annotated[bool, typer.Option("--output", help="What the last night printed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the nights: when due and started, what became of each, and how long it took."""
    from pocketloop.schedules.store import ScheduleStore

    store = ScheduleStore(Home())
    schedule = store.find(adapter)
    if schedule is not None and schedule.starter == "zenml":
        from pocketloop.cli.cluster_schedules import nights as started_there

        emit(started_there(adapter))
        return
    nights = store.nights(adapter)[-last:]
    if not nights:
        store.get(adapter)  # no schedule and no nights: say so
    if output:
        printed = store.newest_output(adapter)
        print(printed.read_text(encoding="utf-8") if printed else f"no night of {adapter} has printed anything")
    elif as_json:
        emit([night.model_dump(mode="json") for night in nights])
    elif not nights:
        say(f"{adapter}: no night yet")
    else:
        zone = schedule.tz if schedule else "UTC"
        rows = [
            [
                _local(night.due, zone),
                _local(night.started, zone),
                _words(night),
                "–" if night.seconds is None else f"{night.seconds:.0f}",
            ]
            for night in nights
        ]
        table("", ["due", "started", "outcome", ">seconds"], rows)
        worst = nights[-1].outcome
        if worst.bad:
            say(f"  more      {worst.more}")


def _command(home: Home, adapter: str) -> "Command":
    from pocketloop.schedules.timers import Command

    folder = home.schedules / adapter
    folder.mkdir(parents=True, exist_ok=True)
    return Command(Path(sys.executable).with_name("pocketloop"), home.root, Path.cwd(), folder / "timer.log")


def _stop(home: Home, schedule: "Schedule", for_good: bool = True) -> str:
    """Let nothing start this schedule's nights; says what is left to be done by hand."""
    if schedule.starter != "zenml":
        from pocketloop.schedules.timers import timer_of

        timer_of(schedule.starter).remove(schedule.adapter, home.root)
        return ""
    from pocketloop.cli import cluster_schedules

    if for_good:
        return cluster_schedules.delete(schedule.adapter)
    cluster_schedules.set_active(schedule.adapter, False)
    return ""


def _local(moment: datetime, zone: str) -> str:
    return f"{moment.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}"


def _words(night: "Night") -> str:
    """A night's outcome as a line of the log."""
    import psutil

    outcome = night.outcome
    said = {
        "running": "running" if psutil.pid_exists(night.pid) else "ended without a word",
        "nothing new": f"nothing new ({outcome.new} examples)",
        "candidate": f"candidate {outcome.version}: {outcome.verdict} ({outcome.new} new examples)",
        "failed": f"failed in {outcome.step}: {outcome.reason}" if outcome.step else f"failed: {outcome.reason}",
        "skipped": f"skipped: {outcome.reason}",
    }[outcome.result]
    caught_up = f"; caught up {night.missed} missed" if night.missed else ""
    return said + caught_up + (f"; not yet told: {', '.join(night.untold)}" if night.untold else "")


def _raise(night: "Night") -> None:
    """End with the status that says what became of the night; the line above has said why."""
    outcome = night.outcome
    if outcome.result == "skipped":
        raise typer.Exit(AdapterBusy.exit_code)
    if outcome.bad:
        say(f"  more      {outcome.more}")
        raise typer.Exit(GateFailed.exit_code if outcome.result == "candidate" else PocketloopError.exit_code)
