"""Golden probes: does a runtime continue fixed prompts as the exported files did?"""

import json
from pathlib import Path

from pocketloop.contracts.delivery import Probe
from pocketloop.models.llama_cpp import LlamaCppGenerator


def load_probes(folder: Path) -> list[Probe]:
    """The golden probes of a prepared base, or of an exported adapter."""
    return [Probe.model_validate(probe) for probe in json.loads((folder / "probes.json").read_text(encoding="utf-8"))]


def failed_probes(generator: LlamaCppGenerator, probes: list[Probe]) -> int:
    """How many probes a runtime continues otherwise than the recorded one did, token for token."""
    longest = max((len(probe.answer_ids) for probe in probes), default=0)
    answers = generator.generate_ids([probe.prompt_ids for probe in probes], longest)
    return sum(probe.answer_ids != answer for probe, answer in zip(probes, answers, strict=True))
