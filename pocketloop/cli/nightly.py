"""The work of a night, what it printed, and whom its failure is told."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pocketloop.cli.console import say
from pocketloop.cli.news import counted, news_of
from pocketloop.cli.pipelines import checked, register_candidate
from pocketloop.cli.running import environment, use_stack
from pocketloop.contracts.errors import ConfigError, PocketloopError, stage_of
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_schedules
from pocketloop.contracts.schedules import Night, Outcome, Schedule
from pocketloop.contracts.webhooks import post_json

_LONGEST_REASON = 300


def retrain_tonight(schedule: Schedule, output: Path) -> Outcome:
    """`retrain --if-new N` as an outcome; what it prints goes to the file `output`."""
    new = None
    with _printed_to(output):
        try:
            recipe = checked(schedule.recipe, None)
            news = news_of(Home(), recipe)
            new = news.total
            print(f"{schedule.adapter}: {counted(news)} since its last run", flush=True)
            if new < schedule.if_new:
                return Outcome(result="nothing new", new=new)
            found = register_candidate("retrain", recipe, schedule.stack)
        except Exception as error:
            traceback.print_exception(error)
            return Outcome(
                result="failed",
                new=new,
                step=stage_of(error) or "before the first stage",
                reason=_reason(error),
                more=f"pocketloop schedule log {schedule.adapter} --output",
            )
    name = f"{found.adapter}@{found.version}"
    bad = found.verdict != "pass"
    return Outcome(
        result="candidate",
        new=new,
        version=found.version,
        verdict=found.verdict,
        step="judge" if bad else "",
        reason=f"{name} did not pass its gates ({found.verdict})" if bad else "",
        more=f"pocketloop review show {name}",
    )


def channels_of(schedule: Schedule) -> dict[str, Callable[[str, Night], str]]:
    """Whom to tell of a failed night; a stack without an alerter has told it by doing nothing."""
    url = load_schedules().notify

    def webhook(adapter: str, night: Night) -> str:
        return _told(post_json(url, {"text": words(adapter, night), "adapter": adapter, **_facts(night)}))

    def alerter(adapter: str, night: Night) -> str:
        return _told(_alert(schedule.stack, words(adapter, night)))

    return {**({"webhook": webhook} if url else {}), "alerter": alerter}


def words(adapter: str, night: Night) -> str:
    """A failed night in a sentence."""
    outcome = night.outcome
    where = f" in {outcome.step}" if outcome.step else ""
    due = f"{night.due:%Y-%m-%d %H:%M} UTC"
    return f"pocketloop: the night of {adapter} due {due} failed{where}: {outcome.reason}. More: {outcome.more}"


def load_environment(home: Home) -> None:
    """Set the variables of `schedules/environment` (KEY=VALUE lines) that are not set: a timer knows nobody's shell.

    Raises:
        ConfigError: others may read the file, or a line is none.
    """
    path = home.schedules / "environment"
    if not path.is_file():
        return
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: holds what the nights may know; only its owner may read it: chmod 600")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"{path}:{number}: expected NAME=value")
        os.environ.setdefault(name, value)


def _facts(night: Night) -> dict[str, str | int | None]:
    return {"due": night.due.isoformat(), **night.outcome.model_dump(mode="json")}


def _told(failure: str) -> str:
    if failure:
        say(failure)
    return failure


def _alert(stack: str, text: str) -> str:
    try:
        environment()
        use_stack(stack)
        from zenml.client import Client

        alerter = Client().active_stack.alerter
        return "" if alerter is None or alerter.post(text) else "the stack's alerter did not take the notification"
    except Exception as error:  # whatever a stack's alerter raises, the night is over
        return f"the stack's alerter could not be told: {type(error).__name__}"


def _reason(error: Exception) -> str:
    """What a failure may say outside of this machine: one line, personal values replaced; of a bug only its kind."""
    if not isinstance(error, PocketloopError):
        return f"{type(error).__name__}, which nobody expected"
    from pocketloop.contracts.events import Message
    from pocketloop.contracts.recipe import NerConfig, ScrubConfig
    from pocketloop.privacy.pseudonyms import load_key
    from pocketloop.privacy.scrubber import Scrubber
    from pocketloop.privacy.sure import scrub_conversations

    line = " ".join(str(error).split())[:_LONGEST_REASON]
    scrubber = Scrubber(ScrubConfig(ner=NerConfig(engine="none")), load_key(Home()))
    (shown,) = scrub_conversations(scrubber, [[Message(role="user", content=line)]])
    return shown[0].content or "" if shown else f"{type(error).__name__}, whose message may hold personal values"


@contextmanager
def _printed_to(path: Path) -> Iterator[None]:
    """Send all that this process and those it starts print to a file that only its owner reads."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
        sys.stdout.flush(), sys.stderr.flush()
        saved = [(fd, os.dup(fd)) for fd in (1, 2)]
        try:
            for fd, _ in saved:
                os.dup2(file.fileno(), fd)
            yield
        finally:
            with suppress(ValueError):
                sys.stdout.flush(), sys.stderr.flush()
            for fd, copy in saved:
                os.dup2(copy, fd)
                os.close(copy)
