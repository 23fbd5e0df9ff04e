"""One way to run a model, whatever runs it: transformers here, a phone's runtime, or an address."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.events import Conversation
from pocketloop.models.chat import encode_prompts, stop_ids

_WORTH_SHARING = 32
"""Tokens at the beginning of all prompts from which on transformers computes them once and copies them to all rows."""

TOO_LONG = "prompt longer than the context"
NOT_RENDERED = "chat template refuses the conversation"
TIMED_OUT = "timed out"
CRASHED = "runtime failed"
NO_CONNECTION = "no connection"
BROKEN_JSON = "broken JSON"
EMPTY_REPLY = "no answer in the reply"
REFUSED = "endpoint refused the request"
BUSY = "endpoint was busy"
SERVER_ERROR = "endpoint failed"
NOT_ASKED = "not asked: the generator failed again and again"
UNHEARD = frozenset({TIMED_OUT, CRASHED, NO_CONNECTION, EMPTY_REPLY, REFUSED, BUSY, SERVER_ERROR, NOT_ASKED})
"""Failures of what runs a model; whatever the model would have said, nobody has heard it."""


@dataclass(frozen=True)
class Generation:
    """One greedy answer: its text, how many tokens it took, and whether it ended by itself.

    Where there is none, `failure` says why (one of the reasons above, without anybody's words), and the text is empty.
    """

    text: str
    tokens: int
    finished: bool
    failure: str = ""


def failed(reason: str) -> Generation:
    """The place of an answer that was not given."""
    return Generation(text="", tokens=0, finished=False, failure=reason)


class Generator(Protocol):
    """Anything that answers conversations greedily, in order.

    Every answer stands in its conversation's place. A prompt that cannot be answered (too long for the context, refused
    by the chat template) is a failed `Generation` there; it changes nothing for the others.
    """

    def generate(
        self, conversations: Sequence[Conversation], max_new_tokens: int, tools: list[dict[str, Any]] | None = None
    ) -> list[Generation]:
        """Answer each conversation with at most `max_new_tokens` tokens.

        Raises:
            ModelError: the generator is closed, or what runs it broke; `answering.answer_all` finds out on which item.
        """
        ...


class Scorer(Protocol):
    """Anything that says how probable it finds given answers."""

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer whose ids it reads."""
        ...

    def log_probs(self, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[float]:
        """Log-probability (nats) of each answer's tokens after its prompt's."""
        ...


class TokenGenerator(ABC):
    """A runtime that continues token ids; `tokenizer` renders conversations and `stops` end an answer.

    A prompt and its answer together have at most `context` tokens.
    """

    tokenizer: Any
    stops: set[int]
    context: int

    @abstractmethod
    def generate_ids(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations of token sequences; a stop token is included.

        Raises:
            ModelError: a prompt does not fit the context.
        """

    def generate(
        self, conversations: Sequence[Conversation], max_new_tokens: int, tools: list[dict[str, Any]] | None = None
    ) -> list[Generation]:
        """Answer each conversation with at most `max_new_tokens` tokens, in order."""
        return self.answers(conversations, tools, lambda prompts: self.generate_ids(prompts, max_new_tokens))

    def answers(
        self,
        conversations: Sequence[Conversation],
        tools: list[dict[str, Any]] | None,
        continued: Callable[[list[list[int]]], list[list[int]]],
    ) -> list[Generation]:
        """The answers by `continued`, which is given the prompts that fit; the others fail in their places."""
        prompts = encode_prompts(self.tokenizer, conversations, tools)
        ids = iter(continued([prompt for prompt in prompts if prompt is not None and self.fits(prompt)]))
        return [
            failed(NOT_RENDERED)
            if prompt is None
            else self.answer(next(ids))
            if self.fits(prompt)
            else failed(TOO_LONG)
            for prompt in prompts
        ]

    def fits(self, prompt: list[int]) -> bool:
        """Whether the context holds these tokens and at least one of an answer."""
        return 0 < len(prompt) < self.context

    @abstractmethod
    def close(self) -> None:
        """Give back what the runtime holds; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def answer(self, ids: list[int]) -> Generation:
        """The answer that these tokens are."""
        finished = bool(ids) and ids[-1] in self.stops
        text = self.tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=True)
        return Generation(text=text, tokens=len(ids), finished=finished)


def scored_rows(
    prompts: Sequence[list[int]], answers: Sequence[list[int]], context: int
) -> list[tuple[list[int], int]]:
    """Prompt and answer as one sequence, and where the answer begins.

    Raises:
        ModelError: one of them is empty, or both together do not fit the context.
    """
    rows = [(prompt + answer, len(prompt)) for prompt, answer in zip(prompts, answers, strict=True)]
    for at, (ids, start) in enumerate(rows):
        if not 0 < start < len(ids) <= context:
            raise ModelError(
                f"item {at}: {start} tokens of prompt and {len(ids) - start} of answer; both are needed, and the "
                f"context holds {context} together"
            )
    return rows


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def check_prompts(prompts: Sequence[list[int]], context: int) -> None:
    """See that every prompt has tokens, and leaves room for one more.

    Raises:
        ModelError: one does not; it is named by its place.
    """
    for where, prompt in enumerate(prompts):
        if not 0 < len(prompt) < context:
            raise ModelError(f"prompt {where} has {len(prompt)} tokens; the context holds {context}")


def stops_of(folder: Path, tokenizer: Any) -> set[int]:
    """What ends an answer for transformers, as the tokenizer and `generation_config.json` in its folder say."""
    path = folder / "generation_config.json"
    configured = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    stops = stop_ids(tokenizer) | set(configured if isinstance(configured, list) else [configured])
    return {stop for stop in stops if stop is not None}


class TransformersGenerator(TokenGenerator):
    """Batched greedy generation with a transformers model (with or without a peft adapter).

    Prompts of similar length share a batch, so that little is padded. What all prompts begin with (a system text,
    declared functions) is computed once, and each row of a batch starts with a copy of it.

    Args:
        model: a causal language model.
        tokenizer: pads on the left.
        batch_size: prompts that are answered together.
        context: longest prompt and answer together, in tokens; by default what the model was made for.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 32, *, context: int | None = None) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.stops = stop_ids(tokenizer, model.generation_config)
        self.batch_size = batch_size
        self.context = context or model.config.get_text_config().max_position_embeddings

    def generate_ids(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations of token sequences; a stop token is included."""
        check_prompts(prompts, self.context)
        answers: list[list[int]] = [[] for _ in prompts]
        if not prompts or max_new_tokens < 1:
            return answers
        alike = common_length(min(prompts), max(prompts))
        beginning = self._beginning(prompts[0][: alike - 1]) if len(prompts) > 1 and alike > _WORTH_SHARING else None
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            asked = [prompts[index] for index in batch]
            rows = self._continue(asked, min(max_new_tokens, self.context - len(asked[0])), beginning)
            for index, row in zip(batch, rows, strict=True):
                end = next((at + 1 for at, token in enumerate(row) if token in self.stops), len(row))
                answers[index] = row[: min(end, self.context - len(prompts[index]))]
        return answers

    def log_probs(self, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[float]:
        """Log-probability (nats) of each answer's tokens after its prompt's, in batches of similar length.

        Raises:
            ModelError: a prompt and its answer do not fit the context, or one of them is empty.
        """
        import torch

        rows = scored_rows(prompts, answers, self.context)
        order = sorted(range(len(rows)), key=lambda at: len(rows[at][0]))
        found: dict[int, float] = {}
        for at in range(0, len(order), self.batch_size):
            batch = order[at : at + self.batch_size]
            width = len(rows[batch[-1]][0])
            ids = torch.zeros(len(batch), width, dtype=torch.long)
            answered = torch.zeros(len(batch), width, dtype=torch.bool)
            for place, number in enumerate(batch):
                tokens, start = rows[number]
                ids[place, : len(tokens)] = torch.tensor(tokens)
                answered[place, start : len(tokens)] = True
            ids, answered = ids.to(self.model.device), answered.to(self.model.device)
            with torch.inference_mode():
                # What is padded stands behind everything that is looked at: nothing before it sees it.
                logits = self.model(input_ids=ids, use_cache=False).logits[:, :-1][answered[:, 1:]]
                each = -torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][answered[:, 1:]], reduction="none")
            rows_of = answered[:, 1:].nonzero()[:, 0]
            sums = torch.zeros(len(batch), device=each.device).index_add(0, rows_of, each)
            found.update(zip(batch, sums.tolist(), strict=True))
        return [found[number] for number in range(len(rows))]

    def close(self) -> None:
        """Nothing to give back: the model is the caller's."""

    def _beginning(self, ids: list[int]) -> Any:
        """Keys and values of what all prompts begin with.

        All of them, in sliding layers too, whose masks then leave out what lies too far back: a cache of the window
        alone could not be shifted.
        """
        import torch
        from transformers import DynamicCache

        cache = DynamicCache()
        with torch.inference_mode():
            self.model(input_ids=torch.tensor([ids], device=self.model.device), past_key_values=cache, logits_to_keep=1)
        return cache

    def _continue(self, prompts: list[list[int]], max_new_tokens: int, beginning: Any) -> list[list[int]]:
        import torch

        padded = self.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        width = padded["input_ids"].shape[1]
        paddings = [width - len(prompt) for prompt in prompts]
        known = {} if beginning is None else {"past_key_values": _shifted(beginning, paddings)}
        with torch.inference_mode():
            output = self.model.generate(
                **padded.to(self.model.device),
                **known,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=sorted(self.stops),
                pad_token_id=self.tokenizer.pad_token_id,
            )
        rows: list[list[int]] = output[:, width:].tolist()
        return rows


def _shifted(beginning: Any, paddings: list[int]) -> Any:
    """A cache whose rows hold as much of the beginning as stands in the same columns behind each row's padding.

    A row of a batch is padding, then the prompt. Columns of all rows are cached alike, as many as the beginning has
    tokens: a row with padding finds fewer of the prompt's tokens there, and computes the others.
    """
    from torch import cat
    from torch.nn.functional import pad
    from transformers import DynamicCache

    length = beginning.get_seq_length()
    cache = DynamicCache()
    for number, layer in enumerate(beginning.layers):
        keys, values = (
            cat([pad(held[:, :, : max(length - left, 0)], (0, 0, min(left, length), 0)) for left in paddings])
            for held in (layer.keys, layer.values)
        )
        cache.update(keys, values, number)
    return cache
