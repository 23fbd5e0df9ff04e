"""Where things stand, and what to do next: plain values in, lines and commands out.

`standing_facts` reads the values.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict

from pocketloop.cli.runs import RunRecord

_MOST_STEPS = 3
_MOST_LINES = 6
"""Lines of one section; the rest is counted."""
_TRAINING = ("retrain", "train", "curate")
_UNFINISHED = ("failed", "interrupted")


class _Fact(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Run(_Fact):
    """The last run of one pipeline for one adapter."""

    record: RunRecord
    alive: bool
    """Whether its process is there."""

    @property
    def killed(self) -> bool:
        """Whether it ended without being able to say so."""
        return self.record.outcome == "running" and not self.alive


class Waiting(_Fact):
    """An adapter's newest candidate."""

    adapter: str
    version: str
    verdict: str
    registered: AwareDatetime
    said: str
    """What reviewers made of it; empty when nobody has looked."""
    merged: bool
    approved: bool
    """Whether an approval of this adapter was not taken to the fleet yet."""

    @property
    def name(self) -> str:
        """ADAPTER@VERSION."""
        return f"{self.adapter}@{self.version}"

    @property
    def for_review(self) -> bool:
        """Whether a reviewer has to decide."""
        return self.verdict == "pass" and not self.said and not self.merged


class Climbing(_Fact):
    """A rollout in progress."""

    rollout: str
    adapter: str
    version: str
    rung: int
    """From 1."""
    rungs: int
    percent: float
    since: AwareDatetime
    """When this rung began."""
    may_widen: AwareDatetime
    looked: AwareDatetime
    said: str
    """The last decision's reason."""


class Base(_Fact):
    """A prepared base."""

    base: str
    quantization: str
    digest: str


class Planned(_Fact):
    """A schedule."""

    adapter: str
    cron: str
    paused: bool


class Standing(_Fact):
    """Everything that the status page says."""

    at: AwareDatetime
    home: str
    exists: bool
    sizes: dict[str, int] = {}
    """Bytes by folder of the home."""
    more_files: bool = False
    """Whether there are more files than were counted."""
    events: int = 0
    new_events: dict[str, int] = {}
    """By adapter: what came since its newest release; without any release, what its recipe would take."""
    releases: dict[str, str] = {}
    """Digest of each adapter's newest release."""
    bases: list[Base] = []
    runs: list[Run] = []
    candidates: list[Waiting] = []
    registry: str = ""
    """Address of the registry where it is a server, which is not asked."""
    repository: bool = False
    """Whether there is a signed repository."""
    signatures: bool = False
    """Whether a change to it waits for signatures."""
    rollouts: list[Climbing] = []
    schedules: list[Planned] = []
    doubts: list[str] = []
    """What could not be read, and why."""


class Step(_Fact):
    """A command that fits, and what for."""

    command: str
    why: str


class Page(_Fact):
    """The status page as JSON."""

    standing: Standing
    next: list[Step]


def next_steps(now: Standing) -> list[Step]:
    """One to three commands that fit, the most urgent first: what people wait for, what failed, what is new."""
    found: dict[str, Step] = {}
    for step in _fitting(now):
        found.setdefault(step.command, step)
    return list(found.values())[:_MOST_STEPS] or list(_otherwise(now))


def _fitting(now: Standing) -> Iterator[Step]:
    busy = {run.record.subject for run in now.runs if run.alive and run.record.pipeline in _TRAINING}
    climbing = {rollout.adapter for rollout in now.rollouts}
    if now.signatures:
        yield Step(command="pocketloop cdn proposal", why="a change waits for reviewers' signatures")
    if now.rollouts:
        yield Step(command="pocketloop watch", why="look at the rollout: widen, hold or take back")
    for one in now.candidates:
        if one.approved and one.adapter not in climbing:
            yield _publish(one.adapter, now.repository)
    for one in now.candidates:
        if one.for_review:
            yield Step(command=f"pocketloop review show {one.name}", why="read the card, then approve or reject")
    unfinished = {run.record.subject: run for run in _last_trainings(now.runs) if run.record.subject not in busy}
    unfinished = {name: run for name, run in unfinished.items() if run.killed or run.record.outcome in _UNFINISHED}
    for adapter, run in unfinished.items():
        stage = f" in stage {run.record.stage}" if run.record.stage else ""
        why = f"did not finish{stage}; it goes on from the last finished stage"
        yield Step(command=f"pocketloop {run.record.pipeline} {adapter}", why=why)
    for adapter, count in sorted(now.new_events.items(), key=lambda item: -item[1]):
        if count and adapter not in busy | unfinished.keys():
            yield Step(command=f"pocketloop retrain {adapter}", why=f"{count:,} events are new")
    for one in now.candidates:
        if one.verdict != "pass" and not one.said:
            yield Step(command=f"pocketloop gates explain {one.name}", why=f"its verdict is {one.verdict}")


def _publish(adapter: str, repository: bool) -> Step:
    if not repository:
        return Step(command="pocketloop cdn init", why=f"{adapter} is approved, and there is no signed repository yet")
    return Step(command=f"pocketloop promote {adapter}", why="approved, and not on its way to the fleet")


def _last_trainings(runs: list[Run]) -> list[Run]:
    """Of each adapter the newest run that curates or trains; `runs` come newest first."""
    newest: dict[str, Run] = {}
    for run in runs:
        if run.record.pipeline in _TRAINING:
            newest.setdefault(run.record.subject, run)
    return list(newest.values())


def _otherwise(now: Standing) -> Iterator[Step]:
    """What to do where nothing is asked for."""
    at_work = sorted({run.record.subject for run in now.runs if run.alive})
    if at_work:
        yield Step(command="pocketloop status", why=f"{', '.join(at_work)} is being worked on")
    elif now.registry:
        yield Step(command="pocketloop review list", why=f"candidates are on {now.registry}")
    elif now.candidates or now.runs or now.events:
        yield Step(command="pocketloop ui", why="nothing waits; the registry's pages show what was done")
    else:
        yield Step(command="make run", why="from a demo fleet's events to a first candidate, about ten minutes")
        yield Step(command="pocketloop data import FILE", why="your own interaction events")
        yield Step(command="pocketloop new NAME --task intent --examples FILE", why="your own task, from examples")


def lines(now: Standing) -> list[tuple[str, str]]:
    """The page: label and text of each line. A label stands once, at the first line of its section."""
    if not now.exists:
        sections: dict[str, list[str]] = {"state": [f"{now.home}: nothing here yet"]}
    else:
        sections = {
            "state": [_state(now)],
            "events": [_events(now)],
            "bases": [f"{base.base} {base.quantization}, {base.digest[:12]}" for base in now.bases],
            "runs": [_run(run, now.at) for run in now.runs],
            "review": [_candidate(one, now.at) for one in now.candidates],
            "rollouts": [_rollout(one, now.at) for one in now.rollouts],
            "schedules": [f"{s.adapter}: {s.cron}{' (paused)' if s.paused else ''}" for s in now.schedules],
        }
        if now.registry:
            sections["review"] = [f"on {now.registry}, which is not asked here"]
    sections["doubtful"] = now.doubts
    steps = next_steps(now)
    width = max(len(step.command) for step in steps) + 2
    sections["next"] = [f"{step.command:<{width}} {step.why}" for step in steps]
    return [pair for label, texts in sections.items() for pair in _section(label, texts)]


def _section(label: str, texts: list[str]) -> Iterator[tuple[str, str]]:
    for number, text in enumerate(texts[:_MOST_LINES]):
        yield "" if number else label, text
    if len(texts) > _MOST_LINES:
        yield "", f"and {len(texts) - _MOST_LINES} more"


def _state(now: Standing) -> str:
    total = sum(now.sizes.values())
    largest = sorted(now.sizes.items(), key=lambda item: -item[1])[:3]
    parts = ", ".join(f"{name} {size(count)}" for name, count in largest if count)
    return f"{now.home}: {'more than ' if now.more_files else ''}{size(total)}{f' ({parts})' if parts else ''}"


def _events(now: Standing) -> str:
    if not now.events:
        return "none in the log"
    since = "since the newest release" if now.releases else "that a recipe would take"
    new = ", ".join(f"{adapter} {count:,}" for adapter, count in sorted(now.new_events.items()))
    return f"{now.events:,} in the log" + (f"; {since}: {new}" if new else "")


def _run(run: Run, at: datetime) -> str:
    record = run.record
    name = f"{record.pipeline} {record.subject}".strip()
    if run.alive:
        return f"{name}: running since {ago(record.started, at)} (process {record.pid})"
    if run.killed:
        return f"{name}: was killed, started {ago(record.started, at)}"
    ended = record.ended or record.started
    said = f"{name}: {record.outcome} {ago(ended, at)}, after {span(ended - record.started)}"
    where = f", in stage {record.stage}" if record.stage else ""
    return f"{said}{where}{f', {record.error}' if record.error else ''}{f'; {record.result}' if record.result else ''}"


def _candidate(one: Waiting, at: datetime) -> str:
    state = one.said
    if not state:
        merged = "cannot be published: merged into its base"
        state = "waits for a reviewer" if one.for_review else merged if one.merged else "not for review"
    return f"{one.name}: {one.verdict}, {state}; registered {ago(one.registered, at)}"


def _rollout(one: Climbing, at: datetime) -> str:
    may = f"may widen from {one.may_widen:%Y-%m-%d %H:%M} UTC on" if one.may_widen > at else "may widen at any look"
    rung = f"rung {one.rung} of {one.rungs} ({one.percent:g} %) since {span(at - one.since)}"
    return f"{one.adapter}@{one.version}: {rung}; {may}; last look {ago(one.looked, at)}: {one.said}"


def ago(then: datetime, now: datetime) -> str:
    """How long ago, as a person says it."""
    return "just now" if now - then < timedelta(minutes=1) else f"{span(now - then)} ago"


def span(length: timedelta) -> str:
    """A length of time in its largest unit; a negative one is none."""
    seconds = max(0.0, length.total_seconds())
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def size(count: int) -> str:
    """Bytes in decimal units."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
