"""Several answers of the current adapter to one prompt, ranked by the judge: preference pairs without people (RLAIF).

Lee et al., "RLAIF vs. RLHF: Scaling Reinforcement Learning from Human Feedback with AI Feedback" (ICML 2024), with
every comparison made in both orders.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from pocketloop.contracts.events import Conversation, Message
from pocketloop.contracts.examples import PreferencePair
from pocketloop.contracts.files import read_jsonl
from pocketloop.contracts.names import Task
from pocketloop.labeling.extract import Candidate, EventFiles
from pocketloop.labeling.jury import Jury
from pocketloop.labeling.pairs import make_pair
from pocketloop.labeling.priority import Queue
from pocketloop.tasks.answers import read_calls, write_answer
from pocketloop.tasks.forms import FormChecker
from pocketloop.tasks.tasks import TaskSpec

if TYPE_CHECKING:
    from pocketloop.models.llama_cpp import LlamaCppGenerator

TEMPERATURE = 0.8


class Sampled(BaseModel):
    """Different answers of one adapter to one event's prompt."""

    model_config = ConfigDict(extra="forbid")

    event_id: str
    group: str
    source: str
    task: Task
    role: str = ""
    prompt: list[Message]
    answers: list[Message]


Sampler = Callable[[Sequence[Conversation], int], list[list[str]]]
"""Draws so many texts for each conversation, not necessarily different ones."""


def prompts_to_sample(events: EventFiles, limit: int) -> list[Candidate]:
    """The events on whose prompts answers are worth comparing: edge cases first, as for the judge."""
    queue = Queue(enough=limit)
    for place, _, _, candidate in events:
        if candidate is not None and candidate.correction is None:
            queue.add(candidate, place, rated=False)
    return [events.at(place) for place, _ in zip(queue, range(limit), strict=False)]


def sample_answers(
    candidates: list[Candidate], task: TaskSpec, name: Task, sampler: Sampler, count: int
) -> list[Sampled]:
    """Let the adapter answer each prompt `count` times; only prompts with at least two different answers are kept."""
    drawn = sampler([task.conversation(candidate.prompt, candidate.role) for candidate in candidates], count)
    rows = []
    for candidate, texts in zip(candidates, drawn, strict=True):
        answers = {write_answer(turn): turn for turn in map(as_answer(name), texts)}
        answers.pop("", None)
        if len(answers) >= 2:
            rows.append(
                Sampled(
                    event_id=candidate.event_id,
                    group=candidate.group,
                    source=candidate.source,
                    task=name,
                    role=candidate.role,
                    prompt=candidate.prompt,
                    answers=list(answers.values()),
                )
            )
    return rows


def rank_samples(file: Path, jury: Jury, checker: FormChecker) -> Iterator[PreferencePair]:
    """The best before the worst answer to each prompt of `file` (`Sampled`), where the judge can tell.

    An answer of unsound form is never chosen, and is the worst without being asked about.
    """
    found: dict[str, tuple[int, int]] = {}

    async def rank(sampled: Sampled) -> None:
        sound = [at for at, one in enumerate(sampled.answers) if checker.problem(sampled.prompt, one) is None]
        unsound = [at for at in range(len(sampled.answers)) if at not in sound]
        if len(sound) == 1 and unsound:
            found[sampled.event_id] = (sound[0], unsound[0])
        elif len(sound) >= 2:
            ends = await jury.best_and_worst(sampled.prompt, [sampled.answers[at] for at in sound])
            if ends:
                found[sampled.event_id] = (sound[ends[0]], unsound[0] if unsound else sound[ends[1]])

    jury.endpoint.run(rank, map(Sampled.model_validate, read_jsonl(file)))
    for sampled in map(Sampled.model_validate, read_jsonl(file)):
        if sampled.event_id in found:
            best, worst = found[sampled.event_id]
            yield make_pair(
                sampled.prompt,
                sampled.answers[best],
                sampled.answers[worst],
                task=sampled.task,
                source=sampled.source,
                group=sampled.group,
                event_ids=[sampled.event_id],
                role=sampled.role,
                reason="judge",
            )


def as_answer(task: Task) -> Callable[[str], Message]:
    """How a text that a model wrote is read as its turn: a label, calls, or words and calls."""

    def turn(text: str) -> Message:
        if task == "intent":
            return Message(role="assistant", content=text.strip())
        words, calls = read_calls(text) or (text.strip(), [])
        return Message(role="assistant", content="" if calls and task == "function_call" else words, tool_calls=calls)

    return turn


def llama_sampler(model: "LlamaCppGenerator", max_new_tokens: int, tools: list[dict[str, Any]] | None) -> Sampler:
    """Draws from a model as a phone runs it: its own best answer first, then freer ones, each with a seed."""

    def draw(conversations: Sequence[Conversation], count: int) -> list[list[str]]:
        rounds = [model.generate(conversations, max_new_tokens, tools)]
        rounds += [
            model.sample(conversations, max_new_tokens, tools, temperature=TEMPERATURE, seed=seed)
            for seed in range(1, count)
        ]
        return [[one.text for one in answers] for answers in zip(*rounds, strict=True)]

    return draw
