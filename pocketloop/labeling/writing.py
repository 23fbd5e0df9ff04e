"""The files of a labelled folder, written line by line, with everything counted."""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TextIO

from pydantic import BaseModel

from pocketloop.contracts.events import Quarantined
from pocketloop.contracts.examples import PreferencePair
from pocketloop.contracts.files import canonical_json
from pocketloop.contracts.labels import ForPeople
from pocketloop.contracts.reports import StageCount

EXAMPLES_PER_FILE = 10_000


class LabelledFiles:
    """Writes `examples/part-*.jsonl`, `pairs.jsonl`, `rated.jsonl`, `for_people.jsonl` and `quarantine.jsonl`.

    The folder is this object's own, to be renamed into place once it is whole.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = ExitStack()
        self._kept = 0
        self._left_out: Counter[str] = Counter()
        self.corrected = 0
        self.pairs: Counter[str] = Counter()
        self.rated: Counter[str] = Counter()

    def __enter__(self) -> "LabelledFiles":
        (self._folder / "examples").mkdir()
        names = ("pairs.jsonl", "rated.jsonl", "for_people.jsonl", "quarantine.jsonl")
        self._pairs, self._rated, self._for_people, self._quarantine = map(self._file, names)
        self._examples: TextIO | None = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._examples is not None:
            self._examples.close()
        self._open.close()

    def keep(self, line: str) -> None:
        """Write the line of an example."""
        if self._kept % EXAMPLES_PER_FILE == 0:
            if self._examples is not None:
                self._examples.close()
            path = self._folder / "examples" / f"part-{self._kept // EXAMPLES_PER_FILE:05}.jsonl"
            self._examples = open(path, "w", encoding="utf-8")  # noqa: SIM115
        assert self._examples is not None
        self._examples.write(line + "\n")
        self._kept += 1

    def leave_out(self, reason: str, event_id: str | None, detail: str = "") -> None:
        """Note a record that is not learned from."""
        self._left_out[reason] += 1
        _write(self._quarantine, Quarantined(stage="label", reason=reason, detail=detail, event_id=event_id))

    def carry(self, earlier: Path) -> None:
        """Carry along what earlier stages left out."""
        with open(earlier, encoding="utf-8") as lines:
            self._quarantine.writelines(lines)

    def pair(self, pair: PreferencePair) -> None:
        """Write a preference pair."""
        self.pairs[pair.reason] += 1
        _write(self._pairs, pair)

    def rate(self, line: str, liked: bool) -> None:
        """Write the line of a rated answer."""
        self.rated["up" if liked else "down"] += 1
        self._rated.write(line + "\n")

    def ask(self, row: ForPeople) -> None:
        """Write an answer that people should look at."""
        _write(self._for_people, row)

    def count(self) -> StageCount:
        """What entered, was kept and was left out so far."""
        left_out = dict(sorted(self._left_out.items()))
        entered = self._kept + sum(left_out.values())
        return StageCount(stage="label", entered=entered, kept=self._kept, left_out=left_out)

    def _file(self, name: str) -> TextIO:
        return self._open.enter_context(open(self._folder / name, "w", encoding="utf-8"))


def _write(file: TextIO, row: BaseModel) -> None:
    file.write(canonical_json(row.model_dump(mode="json")) + "\n")
