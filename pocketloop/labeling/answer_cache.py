"""What an endpoint answered, kept by the digest of everything that it was asked: nothing is paid for twice."""

import json
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any


class AnswerCache:
    """Answers by key in one SQLite file; each is on disk before `put` returns, so that a killed run loses none.

    Values are verdicts, never text. With `None` for a folder nothing outlives the object.
    """

    def __init__(self, folder: Path | None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(folder / "answers.sqlite" if folder else ":memory:", timeout=30)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer, if it was given before."""
        row = self._connection.execute("SELECT value FROM answers WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep an answer."""
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(value)))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
