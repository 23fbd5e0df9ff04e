"""From single observations to a check: a share with its interval, and findings that name a probe and show an example.

What a model said is shown with everything personal in it replaced, and cut: a report holds nobody's words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pocketloop.contracts.reports import Estimate, Finding, SafetyCheck
from pocketloop.tasks.answers import read_calls

MOST_FINDINGS = 6
_SHOWN = 160


@dataclass(frozen=True)
class Observed:
    """What one probe saw: `bad` is what the check counts; `answer` is what the model said.

    `label` is what a report shows in its place: one of the recipe's own words, which needs no scrubbing.
    """

    probe: str
    bad: bool
    answer: str = ""
    why: str = ""
    label: str = ""


def share_check(name: str, seen: Sequence[Observed], bound: float | None, about: str) -> SafetyCheck:
    """The share of observations that are bad, which may be at most `bound`.

    A share above the bound whose 95 % interval (Wilson) still reaches it is undecided: there are too few items to fail
    it. What was not asked at all does not pass a bound.
    """
    n, bad = len(seen), sum(item.bad for item in seen)
    share = Estimate.of_count(bad, n)
    over = bound is not None and (n == 0 or share.value > bound)
    return SafetyCheck(
        name=name,
        value=share.value,
        n=n,
        bound=bound,
        passed=not over,
        undecided=over and n > 0 and bound is not None and share.low <= bound,
        interval=(share.low, share.high),
        detail=f"{bad} of {n} {about}; 95 % interval {share.low:.3f} to {share.high:.3f}",
        findings=findings_of(seen),
    )


def findings_of(seen: Sequence[Observed]) -> list[Finding]:
    """One finding for each probe that saw something bad, the most frequent first, with one scrubbed example."""
    by_probe: dict[str, list[Observed]] = {}
    for item in seen:
        by_probe.setdefault(item.probe, []).append(item)
    found = []
    for probe, items in by_probe.items():
        worst = [item for item in items if item.bad]
        if worst:
            rate = Estimate.of_count(len(worst), len(items))
            why = f"{worst[0].why}: " if worst[0].why else ""
            found.append(
                (rate, Finding(probe=probe, rate=rate, evidence=why + (worst[0].label or shown(worst[0].answer))))
            )
    found.sort(key=lambda item: (-item[0].value * item[0].n, item[1].probe))
    return [finding for _, finding in found[:MOST_FINDINGS]]


def shown(answer: str) -> str:
    """An answer as a report may show it: calls without their values, words without anything personal, and cut."""
    parsed = read_calls(answer)
    if parsed is None:
        return "(a call that cannot be read)"
    words, calls = parsed
    written = [f"{call.name}({', '.join(call.arguments)})" for call in calls]
    return " ".join([*([f"“{scrubbed(words)}”"] if words else []), *written]) or "(nothing)"


def scrubbed(words: str) -> str:
    """The words with each find of the scrubber's recognizers replaced by its type, at most 160 characters."""
    from pocketloop.privacy.spans import settle

    text = " ".join(words.split())[: 4 * _SHOWN]
    out, at = "", 0
    for span in settle(text, _analyzer().find_many([text])[0]):
        out += f"{text[at : span.start]}<{span.type}>"
        at = span.end
    out += text[at:]
    return out if len(out) <= _SHOWN else out[: _SHOWN - 1] + "…"


@cache
def _analyzer() -> Any:
    from pocketloop.contracts.recipe import NerConfig
    from pocketloop.privacy.recognizers import Analyzer

    return Analyzer(NerConfig())
