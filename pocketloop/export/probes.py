"""Golden probes of an adapter: how it continues prompts of its own task, and how the base alone would.

Prompts are made from the recipe's catalogue and a few fixed sentences, and asked as a phone asks: with the system text
of each role and the declared functions. Nothing that a person said is among them. Of many, those are kept on which base
and adapter part early, so that a file without effect cannot pass.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pocketloop.contracts.delivery import PROBED_TOKENS, Probe
from pocketloop.contracts.events import Message
from pocketloop.contracts.files import write_json
from pocketloop.models.chat import encode_prompt
from pocketloop.models.executorch import ExecuTorchGenerator
from pocketloop.models.generators import common_length
from pocketloop.models.llama_cpp import LlamaCppGenerator
from pocketloop.models.probes import PROBE_SENTENCES, weigh, weigh_answer
from pocketloop.tasks.tasks import TaskSpec

PROBES = 8
_TOKENS = 16
_FROM_CATALOGUE = 12
_CLEAR = 0.5
"""Nats by which a token must win to be sure: kernels that round differently, or take a prompt in other pieces, have
moved a lead by 0.2 on weights drawn at random."""


class Asked(NamedTuple):
    """A prompt for one of the task's roles."""

    role: str
    text: str
    ids: list[int]


def write_adapter_probes(
    path: Path,
    base: Path,
    tokenizer: Path,
    adapter: Path | None,
    task: TaskSpec,
    threads: int | None = None,
    *,
    merged: Path | None = None,
) -> list[Probe]:
    """Record up to PROBES probes of `adapter` on the quantized `base`, or of `merged`, in the file `path`.

    Raises:
        ModelError: a file cannot be loaded, or belongs to another base.
    """
    with (
        LlamaCppGenerator(merged or base, tokenizer, adapter, threads=threads) as skilled,
        LlamaCppGenerator(base, tokenizer, threads=threads) as plain,
    ):
        asked = questions(skilled, task)
        prompts = [question.ids for question in asked]
        order = _most_telling(asked, skilled.generate_ids(prompts, _TOKENS), plain.generate_ids(prompts, _TOKENS))
        probes: list[Probe] = []
        unsure: list[Probe] = []
        for at in order:
            # One at a time, as a phone asks: together with others, rounding differs.
            (answer,), (alone,) = (one.generate_ids([prompts[at]], _TOKENS) for one in (skilled, plain))
            head = answer[:PROBED_TOKENS]
            ours, theirs = (weigh_answer(one, prompts[at], head) for one in (skilled, plain))
            probe = _probe(asked[at].text, prompts[at], answer, alone, ours, theirs)
            (probes if ours[0][1] >= _CLEAR else unsure).append(probe)
            if len(probes) == PROBES:
                break
    probes = probes or unsure[:PROBES]
    write_json(path, [probe.model_dump() for probe in probes])
    return probes


def write_program_probes(
    path: Path, runtime: ExecuTorchGenerator, adapter: Path, base: Path | None, asked: Sequence[Probe]
) -> list[Probe]:
    """Record how a lowered `adapter`, and `base` where they share weights, continue the prompts of `asked`.

    Another runtime with other precisions says other words, so that a program has probes of its own.

    Raises:
        ModelError: a program cannot be run, or belongs to other weights.
    """
    fitting = [probe for probe in asked if len(probe.prompt_ids) + _TOKENS <= runtime.context]
    prompts = [probe.prompt_ids for probe in fitting]
    runtime.set_adapter(adapter)
    answers = runtime.generate_ids(prompts, _TOKENS)
    heads = [(prompt, answer[:PROBED_TOKENS]) for prompt, answer in zip(prompts, answers, strict=True)]
    ours = [_weigh_by_logits(runtime, *head) for head in heads]
    alone: Sequence[list[int] | None] = [None] * len(prompts)
    theirs: Sequence[list[tuple[float, float]] | None] = [None] * len(prompts)
    if base is not None:
        runtime.set_adapter(base)
        alone = runtime.generate_ids(prompts, _TOKENS)
        theirs = [_weigh_by_logits(runtime, *head) for head in heads]
        runtime.set_adapter(adapter)
    probes = [
        _probe(probe.prompt, probe.prompt_ids, answer, unadapted, mine, other)
        for probe, answer, unadapted, mine, other in zip(fitting, answers, alone, ours, theirs, strict=True)
    ]
    write_json(path, [probe.model_dump() for probe in probes])
    return probes


def _weigh_by_logits(runtime: ExecuTorchGenerator, prompt: list[int], answer: list[int]) -> list[tuple[float, float]]:
    (rows,) = runtime.logits([prompt + answer])
    return [weigh(rows[len(prompt) - 1 + at], token) for at, token in enumerate(answer)]


def _probe(
    text: str,
    ids: list[int],
    answer: list[int],
    alone: list[int] | None,
    ours: list[tuple[float, float]],
    theirs: list[tuple[float, float]] | None,
) -> Probe:
    """`ours` and `theirs`: log-probability and lead of the answer's first tokens, by the adapter and by the base."""
    sure = next((place for place, (_, lead) in enumerate(ours) if lead < _CLEAR), len(ours))
    gains = [mine[0] - other[0] for mine, other in zip(ours, theirs, strict=True)] if theirs else []
    return Probe(
        prompt=text,
        prompt_ids=ids,
        answer_ids=answer,
        base_ids=alone,
        sure=max(sure, 1),
        gain=round(sum(gains) / len(gains), 4) if gains else None,
    )


def questions(generator: LlamaCppGenerator, task: TaskSpec) -> list[Asked]:
    """Prompts for each role of the task, as a phone would render them; those that leave no room are left out."""
    texts = [*_from_catalogue(task), *PROBE_SENTENCES]
    found = []
    for role in task.roles or {"": ""}:
        for text in texts:
            conversation = task.conversation([Message(role="user", content=text)], role)
            ids = encode_prompt(generator.tokenizer, conversation, task.tools)
            if len(ids) + _TOKENS <= generator.context:
                found.append(Asked(role, text, ids))
    return found


def _from_catalogue(task: TaskSpec) -> list[str]:
    """What the catalogue's labels and functions are called, as a request: enough for the adapter to pick them."""
    if task.catalogue is None:
        return []
    names = [label.replace("_", " ") for label in task.catalogue.labels]
    names += [str(function.get("description") or function["name"]) for function in task.catalogue.functions]
    return names[:_FROM_CATALOGUE]


def _most_telling(asked: list[Asked], answers: list[list[int]], alone: list[list[int]]) -> list[int]:
    """Places of all prompts: every role in turn, first those on which base and adapter part earliest."""
    by_role: dict[str, list[int]] = {}
    for at, question in enumerate(asked):
        by_role.setdefault(question.role, []).append(at)
    waiting = [
        sorted(places, key=lambda at: (common_length(answers[at], alone[at]), at)) for places in by_role.values()
    ]
    order: list[int] = []
    while any(waiting):
        order += [places.pop(0) for places in waiting if places]
    return order
