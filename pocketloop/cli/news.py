"""What is new for an adapter: counted before a run, remembered after one. ZenML is not loaded for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pocketloop.contracts.errors import PocketloopError, note_stage
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_collector

if TYPE_CHECKING:
    from pocketloop.contracts.recipe import Recipe
    from pocketloop.data.news import FileSeen, News


def news_of(home: Home, recipe: "Recipe") -> "News":
    """Bring the event log up to date, and count what the adapter has not learnt from.

    Raises:
        DataError: a source cannot be read.
    """
    from pocketloop.data.news import look_for_news, read_seen
    from pocketloop.data.received import Received
    from pocketloop.data.taking_in import take_in

    now, config = datetime.now(UTC), load_collector()

    def forget(device_id: str) -> None:
        from pocketloop.cli.running import environment
        from steps.forget import forget as everywhere

        everywhere(environment(), received, device_id, now)

    with _collecting():
        if any(source.kind == "events" for source in recipe.data.sources):
            received = Received.of(config, home)
            for damaged in take_in(home.events, received, now, config.retention_days, forget).damaged:
                print(f"  ! {damaged}", flush=True)
        return look_for_news(recipe, home.events, read_seen(home, recipe.adapter), now)


def counted(news: "News") -> str:
    """The news in words."""
    return f"{news.total} new examples ({news.events} events, {news.examples} in example files)"


def read_files(recipe: "Recipe") -> "dict[str, FileSeen]":
    """The recipe's example files as a run that starts now finds them.

    Raises:
        DataError: one cannot be read.
    """
    from pocketloop.data.news import example_files_now

    with _collecting():
        return example_files_now(recipe)


def remember(home: Home, recipe: "Recipe", run: Any, files: "dict[str, FileSeen] | None") -> None:
    """Note what a run that has registered its candidate was given; `files` is None where it collected nothing."""
    from pocketloop.cli.running import output_of
    from pocketloop.data.news import Seen, read_seen, write_seen

    if files is not None:
        newest = output_of(run, "collect", "collect_report").watermark
        write_seen(home, recipe.adapter, Seen(watermark=newest, examples=files))
        return
    before = read_seen(home, recipe.adapter)
    newest = max(before.watermark, output_of(run, "load_release", "release").watermark)
    write_seen(home, recipe.adapter, before.model_copy(update={"watermark": newest}))


@contextmanager
def _collecting() -> Iterator[None]:
    """What fails here would fail in the stage that collects."""
    try:
        yield
    except PocketloopError as error:
        note_stage(error, "collect")
        raise
