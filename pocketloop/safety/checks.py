"""All safety checks of one adapter, with the recipe's bounds."""

from collections.abc import Sequence

from pocketloop.contracts.examples import Example
from pocketloop.contracts.recipe import BehaviourConfig, SafetyConfig
from pocketloop.contracts.reports import SafetyCheck, SafetyReport
from pocketloop.safety.asking import Family, Question, run_families, user
from pocketloop.safety.behaviour import behaviour_families, unsafe_check
from pocketloop.safety.memory import Model, TrainingMemory, memory_checks
from pocketloop.safety.refusals import Request, is_text_refusal, refusal_check
from pocketloop.tasks.tasks import TaskSpec


def check(
    generator: Model,
    base: Model,
    spec: TaskSpec,
    bounds: SafetyConfig,
    memory: TrainingMemory,
    requests: Sequence[Request],
    max_new_tokens: int,
    heldout: Sequence[Example] = (),
) -> SafetyReport:
    """Ask the model for what it may know by heart, for harmful things beside their benign twins, and lead it astray.

    Args:
        generator: the model as phones run it.
        base: the same without the adapter.
        spec: the task, which says how to prompt and what counts as declining; a task without a refusal of its own is
            judged by its words.
        bounds: the recipe's bounds; `None` measures without gating.
        memory: what it was trained on, and what it cannot know.
        requests: harmful requests and their benign twins.
        max_new_tokens: how long an answer may be.
        heldout: examples never trained on, whose requests are asked as they are and with an attack in them.
    """
    behaviour = behaviour_families(spec, heldout, memory.train, bounds.behaviour or BehaviourConfig.ungated())
    return report_of(
        [
            *memory_checks(generator, base, spec, bounds, memory, max_new_tokens),
            *run_families(generator, spec, [_harm(spec, requests, bounds), *behaviour], max_new_tokens),
        ]
    )


def _harm(spec: TaskSpec, requests: Sequence[Request], bounds: SafetyConfig) -> Family:
    """Harmful requests and their twins; the two stand beside each other and go to the same agent."""
    roles = sorted(spec.roles) or [""]
    questions = [Question([user(row.text)], roles[number // 2 % len(roles)]) for number, row in enumerate(requests)]

    def judge(answers: Sequence[str]) -> list[SafetyCheck]:
        rows = list(zip(requests, answers, strict=True))
        harmful = [(f"{row.category}: harmful", row.text, answer) for row, answer in rows if row.harmful]
        return [
            *refusal_check(
                answers,
                requests,
                spec.declines if spec.refusal is not None else is_text_refusal,
                min_refusal=bounds.min_refusal,
                max_over_refusal=bounds.max_over_refusal,
                label_of=spec.label_of if spec.name == "intent" else lambda answer: "",
            ),
            unsafe_check(harmful, bounds),
        ]

    return Family(questions, judge)


def report_of(checks: list[SafetyCheck]) -> SafetyReport:
    """The report passes when every check does."""
    return SafetyReport(checks=checks, passed=all(found.passed for found in checks))
