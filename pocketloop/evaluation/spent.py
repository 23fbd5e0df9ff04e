"""Evaluation sets that have decided: how often, and what that does to what they say.

Whoever keeps the best of several candidates by their scores on one set keeps luck on that set, too. Each decision also
tells whoever trains the next candidate something about the set. docs/gates.md has the bounds and where they are from.
"""

import math
from collections.abc import Sequence

from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import canonical_json, sha256_text
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import EvaluationReport, SetUse
from pocketloop.evaluation.statistics import optimism


def set_digest(examples: Sequence[Example]) -> str:
    """What a set is known by: its examples, in any order and under any name."""
    return sha256_text(canonical_json(sorted(example.example_id for example in examples)))


def lucky_by(decided: int, items: int, share: float) -> float:
    """By how much the best of `decided` equally good candidates looks too good on a set where `share` are right."""
    return optimism(decided, items, math.sqrt(share * (1 - share)))


def adaptive_bound(decided: int, items: int, confidence: float = 0.95) -> float:
    """How far a score on the set may lie above the truth, whatever was done with `decided` verdicts on it before.

    √((k ln 3 + ln(1/δ)) / 2n): Hoeffding's bound over the 3^k ways in which k verdicts (pass, inconclusive, fail) can
    have led to this candidate (description length: Dwork et al., "Generalization in Adaptive Data Analysis and Holdout
    Reuse", NIPS 2015). Where scores themselves were looked at, more was told than that, and the bound does not hold.
    """
    return math.sqrt((decided * math.log(3) - math.log(1 - confidence)) / (2 * items)) if items else 1.0


def spent_warnings(recipe: Recipe, evaluation: EvaluationReport, uses: Sequence[SetUse]) -> list[str]:
    """A sentence where the set that the gates decide on has decided so often that luck may be as large as a margin."""
    said = []
    main = evaluation.results[0].set if evaluation.results else ""
    for use in (use for use in uses if use.set == main):
        result = evaluation.result("adapter", use.set)
        share = next(iter(result.metrics.values())).value if result and result.metrics else 0.5
        said.append(spent_warning(use, share, smallest_margin(recipe)))
    return [warning for warning in said if warning]


def spent_warning(use: SetUse, share: float, margin: float) -> str:
    """What the use of a set, of which `share` are right, means for gates that ask about `margin`; empty if nothing."""
    count = len(use.decided) + 1
    lucky = lucky_by(count, use.items, share)
    if not use.decided or lucky < margin / 2:
        return ""
    return (
        f"evaluation set {use.set} ({use.digest[:12]}) has decided {len(use.decided)} candidates before this one: the "
        f"best of {count} equally good ones looks {lucky:.3f} too good on {use.items:,} items (at worst "
        f"{adaptive_bound(len(use.decided), use.items):.3f}, whatever was made of its verdicts), and the gates ask "
        f"about {margin:g}; it is spent for choosing: use one that has not decided yet"
    )


def smallest_margin(recipe: Recipe) -> float:
    """The finest difference that a recipe's gates ask about on the whole set; 0.05, a floor's, without any margin."""
    margins = [gate.allowance for gate in recipe.gates if gate.against and gate.allowance and not gate.slices]
    return min(margins, default=0.05)
