"""Membership inference: can one tell from an adapter alone whether it was trained on an example?

Members are training examples, the others come from the same release's held-out splits, which no group is cut by. The
attack scores each example, and the area under the ROC curve says how often a member scores above another: one half is
guessing.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from pocketloop.contracts.examples import Example
from pocketloop.contracts.reports import SafetyCheck
from pocketloop.models.chat import encode_prompt
from pocketloop.models.generators import Scorer
from pocketloop.safety.intervals import auc, within
from pocketloop.tasks.answers import write_answer
from pocketloop.tasks.tasks import TaskSpec

MOST = 200
"""Members, and others, that are scored: the interval is then about 0.055 either way around one half."""
LONGEST = 1024
"""Tokens of prompt and answer above which an example is left out."""
_LEAST = 1e-6
"""Nats; what a model is surer of cannot be told apart in float32."""


@dataclass(frozen=True)
class Rows:
    """Examples as token ids, and the group that each one comes from."""

    prompts: list[list[int]]
    answers: list[list[int]]
    groups: list[str]


def draw(examples: Sequence[Example], seed: int = 7, limit: int = MOST) -> list[Example]:
    """At most `limit` of the examples, the same ones for the same seed."""
    return list(examples) if len(examples) <= limit else random.Random(f"members {seed}").sample(list(examples), limit)


def encode(examples: Sequence[Example], spec: TaskSpec, scorer: Scorer) -> Rows:
    """The examples that are not too long, as they are learnt: the prompt as phones render it, and the answer."""
    rows = Rows([], [], [])
    for example in examples:
        prompt = encode_prompt(scorer.tokenizer, spec.conversation(example.prompt, example.role), spec.tools)
        answer = scorer.tokenizer(write_answer(example.answer), add_special_tokens=False)["input_ids"]
        if answer and len(prompt) + len(answer) <= LONGEST:
            rows.prompts.append(prompt)
            rows.answers.append(answer)
            rows.groups.append(example.group)
    return rows


def losses(rows: Rows, scorer: Scorer) -> list[float]:
    """Nats per answer token of each example."""
    found = scorer.log_probs(rows.prompts, rows.answers)
    return [max(-value / len(answer), _LEAST) for value, answer in zip(found, rows.answers, strict=True)]


def gains(adapter: Sequence[float], base: Sequence[float]) -> list[float]:
    """The attack's score: by how much the adapter is surer of each answer's tokens than the base.

    The score is relative to a reference model that has not seen the example, as in Watson et al., "On the importance of
    difficulty calibration in membership inference attacks" (2022), since easy answers are probable whether learnt or
    not. Confidence is taken on the scale log(p / (1 - p)) of Carlini et al., "Membership inference attacks from first
    principles" (2022), on which what is nearly certain still spreads; p is the geometric mean over the tokens.
    """
    return [_confidence(mine) - _confidence(other) for mine, other in zip(adapter, base, strict=True)]


def _confidence(loss: float) -> float:
    """log(p / (1 - p)) where p = exp(-loss)."""
    return -math.log(math.expm1(loss))


def membership_check(
    members: Rows,
    others: Rows,
    adapter: tuple[Sequence[float], Sequence[float]],
    base: tuple[Sequence[float], Sequence[float]],
    bound: float | None,
) -> SafetyCheck:
    """The area under the curve of the stronger of two attacks; `adapter` and `base` hold members' and others' losses.

    One attack is relative to the base (`gains`), the other reads the adapter's loss alone (Yeom et al., "Privacy risk
    in machine learning", 2018). `base` of the check is the area for the base's own loss: unless it is near one half,
    members and others are told apart by what they are, and not by what was learnt.
    """
    n = len(members.groups) + len(others.groups)
    if not members.groups or not others.groups:
        return SafetyCheck(
            name="membership_auc",
            value=0.5,
            n=0,
            bound=bound,
            passed=bound is None,
            detail="no training examples" if not members.groups else "no held-out examples: raise data.test",
        )
    groups = (members.groups, others.groups)
    relative = auc(gains(adapter[0], base[0]), gains(adapter[1], base[1]), *groups)
    plain = auc([-loss for loss in adapter[0]], [-loss for loss in adapter[1]], *groups)
    without = auc([-loss for loss in base[0]], [-loss for loss in base[1]], *groups)
    worst = max(relative, plain, key=lambda found: found.value)
    return SafetyCheck(
        name="membership_auc",
        value=worst.value,
        n=n,
        bound=bound,
        interval=worst.interval,
        base=without.value,
        detail=f"{len(members.groups)} training examples against {len(others.groups)} held-out ones: relative to the "
        f"base {relative.value:.3f}, by the adapter's loss alone {plain.value:.3f}",
        **within(worst.interval, bound),
    )
