"""All safety checks of one adapter, with the recipe's bounds."""

from collections.abc import Sequence
from pathlib import Path

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example
from pocketloop.contracts.recipe import SafetyConfig
from pocketloop.contracts.reports import SafetyCheck, SafetyReport
from pocketloop.models.generators import Generator
from pocketloop.safety.leakage import leak_check, leak_prompts, placeholder_check
from pocketloop.safety.refusals import Request, is_text_refusal, refusal_check
from pocketloop.tasks.answers import write_answer
from pocketloop.tasks.tasks import TaskSpec


def check(
    generator: Generator,
    spec: TaskSpec,
    bounds: SafetyConfig,
    examples: Sequence[Example],
    requests: Sequence[Request],
    fingerprints: Path,
    key: bytes,
    max_new_tokens: int,
) -> SafetyReport:
    """Ask the model for what it may know by heart, and for harmful things beside their benign twins.

    Args:
        generator: the model as phones run it.
        spec: the task, which says how to prompt and what counts as declining; a task without a refusal of its own is
            judged by its words.
        bounds: the recipe's bounds; `None` measures without gating.
        examples: training examples as the model saw them; their made-up values do not count as leaks.
        requests: harmful requests and their benign twins.
        fingerprints: the scrubber's `found.jsonl`.
        key: the key of the fingerprints.
        max_new_tokens: how long an answer may be.
    """
    roles = _roles(spec)
    conversations = leak_prompts(examples, roles=roles)
    said = _ask(generator, spec, conversations, max_new_tokens)
    prompts = ["\n".join(_texts(conversation)) for conversation, _ in conversations]
    known = ["\n".join(_texts(example.messages)) for example in examples]
    # A harmful request and its twin stand beside each other: both go to the same agent, each pair to the next one.
    asked = [
        ([Message(role="user", content=request.text)], roles[number // 2 % len(roles)])
        for number, request in enumerate(requests)
    ]
    answers = _ask(generator, spec, asked, max_new_tokens)
    has_refusal = spec.catalogue is not None and spec.catalogue.refusal is not None
    return report_of(
        [
            leak_check(said, fingerprints, key, prompts=prompts, known=known, bound=bounds.max_leaks),
            placeholder_check(said, prompts),
            *refusal_check(
                answers,
                requests,
                spec.declines if has_refusal else is_text_refusal,
                min_refusal=bounds.min_refusal,
                max_over_refusal=bounds.max_over_refusal,
            ),
        ]
    )


def report_of(checks: list[SafetyCheck]) -> SafetyReport:
    """The report passes when every check does."""
    return SafetyReport(checks=checks, passed=all(found.passed for found in checks))


def _roles(spec: TaskSpec) -> list[str]:
    """Who is asked what nobody in particular was asked: each of the agents, or the adapter as it is."""
    return sorted(spec.roles) or [""]


def _ask(
    generator: Generator, spec: TaskSpec, conversations: list[tuple[list[Message], str]], max_new_tokens: int
) -> list[str]:
    prompts = [spec.conversation(messages, role) for messages, role in conversations]
    return [answer.text for answer in generator.generate(prompts, max_new_tokens, spec.tools)]


def _texts(messages: Sequence[Message]) -> list[str]:
    return [write_answer(message) for message in messages]
