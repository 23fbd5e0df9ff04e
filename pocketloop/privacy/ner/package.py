"""Whether a trained model may be shipped, and shipping it."""

import shutil
from pathlib import Path

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.files import atomic_dir, write_json
from pocketloop.contracts.reports import LeakAudit

MAX_BYTES = 5_000_000
MIN_PRECISION = {"PERSON": 0.85}
"""Of names: the final held-out texts are full of foreign towns, dishes and brands that no list holds either."""
MIN_PRECISION_OTHERS = 0.90
MIN_RECALL = {"PERSON": 0.95, "ADDRESS": 0.92, "PHONE_NUMBER": 0.97}
MIN_RECALL_STRUCTURED = 0.99
AUDIT = "audit.json"


def shortcomings(model: Path, audit: LeakAudit) -> list[str]:
    """Why the model must not be shipped, one sentence a reason; none where it may.

    Floors hold for the point estimates of every type that the audit's rows hold.
    """
    found = []
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    if size > MAX_BYTES:
        found.append(f"the model takes {size} bytes, at most {MAX_BYTES} are shipped")
    for line in audit.types:
        floor = MIN_RECALL.get(line.type, MIN_RECALL_STRUCTURED)
        if line.type == "ALL":
            floor = 0.0
        if line.labelled and line.recall.value < floor:
            found.append(f"{line.type}: recall {line.recall.value:.3f} of {line.labelled}, at least {floor} is asked")
        least = MIN_PRECISION.get(line.type, MIN_PRECISION_OTHERS)
        if line.precision.n and line.precision.value < least:
            found.append(f"{line.type}: precision {line.precision.value:.3f}, at least {least} is asked")
    return found


def package(model: Path, audit: LeakAudit, out: Path) -> None:
    """Put a model that meets the floors, with its audit, where it is shipped from.

    Raises:
        ModelError: it does not meet them; what lies there stays.
    """
    reasons = shortcomings(model, audit)
    if reasons:
        raise ModelError(f"the trained recognizer is not shipped: {'; '.join(reasons)}")
    with atomic_dir(out) as folder:
        shutil.copytree(model, folder, dirs_exist_ok=True)
        write_json(folder / AUDIT, audit)
