"""Which evaluation set an example stands in: by its whole prompt, or by a run of words."""

from collections.abc import Iterable, Mapping
from typing import Any

from pocketloop.contracts.events import Message
from pocketloop.contracts.files import canonical_json, sha256_text
from pocketloop.data.select.keys import number, said


class EvaluationIndex:
    """The prompts of every evaluation set, as hashes; of a prompt that stands in two sets the first one counts.

    A prompt of fewer than `run` words is recognised when all of it is the same; a longer one also by any `run`
    consecutive words of one turn. Only what the person says is compared: case, spacing, punctuation and pseudonyms
    count for nothing.
    """

    def __init__(self, sets: Mapping[str, Iterable[list[Message]]], run: int) -> None:
        self.run = run
        self._whole: dict[int, str] = {}
        self._runs: dict[int, str] = {}
        for name in sorted(sets):
            for prompt in sets[name]:
                text = said([message.model_dump(mode="json") for message in prompt])
                self._whole.setdefault(number(text), name)
                for key in self._keys(text):
                    self._runs.setdefault(key, name)

    @property
    def digest(self) -> str:
        """Digest of all that is looked for."""
        return sha256_text(canonical_json([self.run, sorted(self._whole.items()), sorted(self._runs.items())]))

    def find(self, prompt: list[dict[str, Any]]) -> str | None:
        """The name of the set that `prompt` stands in."""
        text = said(prompt)
        whole = self._whole.get(number(text))
        if whole or not self._runs:
            return whole
        return next((self._runs[key] for key in self._keys(text) if key in self._runs), None)

    def _keys(self, text: str) -> Iterable[int]:
        for turn in text.split("\n"):
            spoken = turn.split(" ")
            for at in range(len(spoken) - self.run + 1):
                yield number(" ".join(spoken[at : at + self.run]))
