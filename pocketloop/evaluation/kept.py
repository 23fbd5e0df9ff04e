"""An evaluation that is under way: one that was killed goes on behind the last portion that is whole."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class Portion(BaseModel):
    """What was answered at once: a row for each example, by its `example_id`, and what they took."""

    model_config = ConfigDict(extra="forbid")

    rows: list[dict[str, Any]]
    tokens: int
    seconds: float


class KeptPortions:
    """The portions in a file, a line each; without a file they are kept in memory alone.

    Whoever names the file sees to it that another model, task or version of the code has another name.

    Args:
        path: a JSON-lines file, perhaps with a last line that was cut off.
        example_ids: of the whole set, in order. What the file has of another set is discarded.
    """

    def __init__(self, path: Path | None, example_ids: Sequence[str]) -> None:
        self.path = path
        self.portions: list[Portion] = []
        if path is None:
            return
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                self.portions.append(Portion.model_validate_json(line))
            except ValidationError:
                break
        found = [row.get("example_id") for row in self.rows]
        if found != list(example_ids[: len(found)]):
            self.portions = []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(map(_line, self.portions)), encoding="utf-8")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All so far, in the examples' order."""
        return [row for portion in self.portions for row in portion.rows]

    def add(self, portion: Portion) -> None:
        """Add a portion; it is on the disk when this returns."""
        self.portions.append(portion)
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_line(portion))
                file.flush()
                os.fsync(file.fileno())


def _line(portion: Portion) -> str:
    return json.dumps(portion.model_dump(mode="json")) + "\n"
