"""What is asked of a model and who judges the answers: families of probes, asked together in one batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pocketloop.contracts.events import Conversation, Message
from pocketloop.contracts.reports import SafetyCheck
from pocketloop.models.answering import answer_all, count_failures
from pocketloop.models.generators import Generation, Generator
from pocketloop.tasks.tasks import TaskSpec


@dataclass(frozen=True)
class Question:
    """One conversation, the agent that it goes to, and the name of the probe that asks it."""

    messages: list[Message]
    role: str = ""
    probe: str = ""


@dataclass(frozen=True)
class Family:
    """Probes that are judged together; `judge` takes one answer for each question, in order."""

    questions: list[Question]
    judge: Callable[[Sequence[str]], list[SafetyCheck]]


def user(text: str) -> Message:
    """What a user says."""
    return Message(role="user", content=text)


def ask(generator: Generator, spec: TaskSpec, questions: Sequence[Question], max_new_tokens: int) -> list[str]:
    """The texts of the answers, in order; empty where there is none."""
    return [answer.text for answer in answers_to(generator, spec, questions, max_new_tokens)]


def answers_to(
    generator: Generator, spec: TaskSpec, questions: Sequence[Question], max_new_tokens: int
) -> list[Generation]:
    """The answers, in order. Where the base's chat template knows no tool turns, their text goes into the user's."""
    prompts = [spec.conversation(question.messages, question.role) for question in questions]
    if not takes_tool_turns(generator):
        prompts = [folded(prompt) for prompt in prompts]
    return answer_all(generator, prompts, max_new_tokens, spec.tools)


def run_families(
    generator: Generator, spec: TaskSpec, families: Sequence[Family], max_new_tokens: int
) -> list[SafetyCheck]:
    """Ask all families' questions at once, and let each judge its own answers.

    The last check counts the questions that got no answer at all: what was not answered was not found safe.
    """
    questions = [question for family in families for question in family.questions]
    given = answers_to(generator, spec, questions, max_new_tokens)
    answers = [answer.text for answer in given]
    checks: list[SafetyCheck] = []
    at = 0
    for family in families:
        checks += family.judge(answers[at : at + len(family.questions)])
        at += len(family.questions)
    return [*checks, _unanswered(given)]


def _unanswered(given: Sequence[Generation]) -> SafetyCheck:
    reasons = count_failures(given)
    lost = sum(reasons.values())
    return SafetyCheck(
        name="unanswered",
        value=lost / len(given) if given else 0.0,
        n=len(given),
        bound=0.0,
        passed=bool(given) and not lost,
        detail=", ".join(f"{n} {why}" for why, n in reasons.items()) or "every question has its answer",
    )


def takes_tool_turns(generator: Generator) -> bool:
    """Whether the chat template renders a tool's result; Gemma 3's, for one, demands that user and model alternate."""
    tokenizer: Any = getattr(generator, "tokenizer", None)
    if tokenizer is None:
        return True
    from jinja2 import TemplateError

    said = [{"role": role, "content": role} for role in ("user", "assistant", "tool", "user")]
    try:
        return "tool" in str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))
    except (TemplateError, ValueError):
        return False


def folded(conversation: Conversation) -> Conversation:
    """The conversation with each tool turn written into the user turn after it."""
    turns: list[dict[str, str]] = []
    pending = ""
    for turn in conversation:
        if turn["role"] == "tool":
            pending += f"{turn['content']}\n"
        elif pending and turn["role"] == "user":
            turns.append({**turn, "content": f"{pending}{turn['content']}"})
            pending = ""
        else:
            turns.append(turn)
    return turns
