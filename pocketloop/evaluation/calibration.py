"""How sure a router may be: the temperature at which its confidence is right as often as it says."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pocketloop.contracts.examples import Example
from pocketloop.contracts.reports import Calibration
from pocketloop.evaluation.routing import calibration_error
from pocketloop.models.chat import encode_prompts
from pocketloop.tasks.tasks import TaskSpec

if TYPE_CHECKING:
    import numpy

    from pocketloop.models.llama_cpp import LlamaCppGenerator

MOST = 500
"""Examples that the temperature is fitted on: enough for one parameter."""
_TEMPERATURES = tuple(round(0.25 * 2 ** (step / 12), 3) for step in range(61))


class Calibrated(NamedTuple):
    """The fitted temperature, and each held-out answer's confidence at the one that phones use, by example id.

    The confidence is 0 where the answer is no label.
    """

    calibration: Calibration
    confidences: dict[str, float]


def calibrate(
    generator: "LlamaCppGenerator",
    examples: Sequence[Example],
    heldout: Sequence[Example],
    task: TaskSpec,
    max_new_tokens: int,
) -> Calibrated | None:
    """Temperature scaling (Guo et al., 2017) of a label's probability, fitted on `examples`, checked on `heldout`.

    The confidence of an answer is the product over its tokens of softmax(logits / T), as the phone computes it. T
    minimizes the log loss of "the label is right", with the smoothed targets of Platt (1999), so that a set without a
    mistake does not make the router infinitely sure. Where `heldout` shows that it makes things worse (its phrasings
    are harder than those of `examples`), confidences stay as they are. `None` when either set has no answer that is a
    label.
    """
    _, fitted, right = _confidences(generator, examples[:MOST], task, max_new_tokens)
    ids, checked, truly = _confidences(generator, heldout, task, max_new_tokens)
    if not len(right) or not len(truly):
        return None
    losses = [_log_loss(fitted[:, at], right) for at in range(len(_TEMPERATURES))]
    best, plain = losses.index(min(losses)), _TEMPERATURES.index(1.0)
    before, after = (calibration_error(checked[:, at], truly) for at in (plain, best))
    used = best if after <= before else plain
    calibration = Calibration(
        temperature=_TEMPERATURES[used],
        fitted=_TEMPERATURES[best],
        n=len(right),
        heldout=len(truly),
        error_before=before,
        error_after=after,
    )
    known = dict(zip(ids, checked[:, used].tolist(), strict=True))
    return Calibrated(calibration, {example.example_id: known.get(example.example_id, 0.0) for example in heldout})


def _confidences(
    generator: "LlamaCppGenerator", examples: Sequence[Example], task: TaskSpec, max_new_tokens: int
) -> tuple[list[str], "numpy.ndarray", "numpy.ndarray"]:
    """Ids; confidence by answer and temperature [answers, temperatures]; whether each answer is right [answers].

    Answers that are no label have confidence 0 at any temperature and are left out, as are prompts that do not fit.
    """
    import numpy as np

    tokenizer, known = generator.tokenizer, set(task.catalogue.labels if task.catalogue else [])
    prompts = encode_prompts(tokenizer, [task.conversation(e.prompt, e.role) for e in examples], task.tools)
    asked = [(example, ids) for example, ids in zip(examples, prompts, strict=True) if ids and generator.fits(ids)]
    answers = generator.generate_ids([ids for _, ids in asked], max_new_tokens)
    found, rows, right = [], [], []
    for (example, prompt), ids in zip(asked, answers, strict=True):
        said = tokenizer.decode(ids[:-1], skip_special_tokens=True).strip()
        if len(ids) == max_new_tokens or said not in known:  # cut off, or no label
            continue
        logits = generator.logits([prompt + ids])[0][len(prompt) - 1 : -1].astype(np.float64)
        below = logits - logits[np.arange(len(ids)), ids][:, None]
        rows.append([math.exp(-np.log(np.exp(below / t).sum(axis=1)).sum()) for t in _TEMPERATURES])
        right.append(said == example.answer.content.strip())
        found.append(example.example_id)
    return found, np.array(rows).reshape(-1, len(_TEMPERATURES)), np.array(right, dtype=bool)


def _log_loss(confidence: "numpy.ndarray", right: "numpy.ndarray") -> float:
    import numpy as np

    hits = int(right.sum())
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2))
    sure = np.clip(confidence, 1e-9, 1 - 1e-9)
    return float(-(target * np.log(sure) + (1 - target) * np.log(1 - sure)).mean())
