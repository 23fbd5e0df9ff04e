"""Erasing what the registry holds of single events: answers that were put before people."""

import sqlite3
from collections.abc import Collection
from pathlib import Path

from pocketloop.contracts.home import Home
from pocketloop.registry.feedback import forget_answers, waiting
from pocketloop.registry.mlflow_store import client

_LOCAL = "sqlite:///"
_SUFFIX = ".answers"


def erase_answers(home: Home, event_ids: Collection[str], dry_run: bool = False) -> int:
    """Delete the answers of these events from all adapters' review queues; how many there were.

    A local store is then rebuilt: SQLite leaves deleted rows in its file otherwise. On a shared server that is its
    owner's task.
    """
    store = Path(home.mlflow_uri.removeprefix(_LOCAL)) if home.mlflow_uri.startswith(_LOCAL) else None
    if not event_ids or (store and not store.is_file()):
        return 0
    if dry_run:
        experiments = client(home).search_experiments(filter_string=f"name LIKE '%{_SUFFIX}'")
        adapters = [experiment.name.removesuffix(_SUFFIX) for experiment in experiments]
        return sum(row["event"] in event_ids for adapter in adapters for row in waiting(home, adapter))
    gone = forget_answers(home, event_ids)
    if gone and store:
        connection = sqlite3.connect(store, timeout=60)
        try:
            connection.execute("VACUUM")
        finally:
            connection.close()
    return gone
