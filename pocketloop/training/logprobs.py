"""How probable a model finds given answers: log-probabilities in nats, summed over each answer's tokens.

Only the positions that predict an answer's token are projected to the vocabulary, and a pair's two answers share one
copy of their prompt: a row is prompt, chosen, rejected, and the rejected answer neither sees the chosen one nor stands
behind it. For a prompt of P tokens and answers of A that is P + 2A positions instead of 2P + 2A.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from pocketloop.training.hardware import choose_attention
from pocketloop.training.losses import CHUNK_POSITIONS, LARGE_VOCABULARY, computing, project

PROMPT, CHOSEN, REJECTED, PADDING = range(4)
"""The parts of a pair's row."""
_TAKE_MASKS = ("eager", "sdpa")


class _HasLength(Protocol):
    @property
    def length(self) -> int: ...


Item = TypeVar("Item", bound=_HasLength)


def token_log_probs(causal: Any, hidden: Any, tokens: Any) -> Any:
    """Log-probability (n,) of each token (n,) after the final hidden state (n, width) that predicts it.

    With a large vocabulary the logits are made for a part of the tokens at a time, as in `losses`.
    """
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.checkpoint import checkpoint

    def found(states: Any, targets: Any) -> Any:
        return -cross_entropy(project(causal, states), targets, reduction="none")

    if causal.config.get_text_config().vocab_size <= LARGE_VOCABULARY:
        return found(hidden, tokens)
    parts = zip(hidden.split(CHUNK_POSITIONS), tokens.split(CHUNK_POSITIONS), strict=True)
    return torch.cat([checkpoint(found, states, targets, use_reentrant=False) for states, targets in parts])


def answer_log_probs(causal: Any, input_ids: Any, attention_mask: Any, answer_mask: Any) -> Any:
    """Log-probability (rows,) of the tokens that `answer_mask` (rows, width) marks in each row."""
    import torch

    hidden = causal.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    answered = answer_mask[:, 1:].bool()
    each = token_log_probs(causal, hidden[:, :-1][answered], input_ids[:, 1:][answered])
    return torch.zeros(len(input_ids), device=each.device).index_add(0, answered.nonzero()[:, 0], each)


def pair_log_probs(causal: Any, batch: dict[str, Any]) -> Any:
    """Log-probability (pairs, 2) of each pair's chosen and rejected answer; `batch` is what `pad_pairs` made."""
    import torch

    input_ids, part = batch["input_ids"], batch["part"]
    hidden = causal.base_model(
        input_ids=input_ids,
        attention_mask=_shared_prompt_masks(causal, part, batch["position_ids"]),
        position_ids=batch["position_ids"],
        use_cache=False,
    ).last_hidden_state
    rows, columns = ((part == CHOSEN) | (part == REJECTED)).nonzero(as_tuple=True)
    each = token_log_probs(causal, hidden[rows, batch["predictor"][rows, columns]], input_ids[rows, columns])
    slots = 2 * rows + (part[rows, columns] == REJECTED)
    return torch.zeros(2 * len(input_ids), device=each.device).index_add(0, slots, each).view(-1, 2)


def pad_pairs(
    prompts: Sequence[list[int]], chosen: Sequence[list[int]], rejected: Sequence[list[int]]
) -> dict[str, Any]:
    """Pairs as one batch, each tensor (pairs, width).

    `part` says what stands where, `position_ids` counts on from the prompt for either answer, `predictor` is the place
    of the token before an answer's token: for the first one of either answer, the end of the prompt.
    """
    import torch

    width = max(len(p) + len(c) + len(r) for p, c, r in zip(prompts, chosen, rejected, strict=True))
    shape = (len(prompts), width)
    input_ids, position_ids, predictor = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    part = torch.full(shape, PADDING)
    for row, (prompt, good, bad) in enumerate(zip(prompts, chosen, rejected, strict=True)):
        start, middle, end = len(prompt), len(prompt) + len(good), len(prompt) + len(good) + len(bad)
        input_ids[row, :end] = torch.tensor(prompt + good + bad)
        position_ids[row, :middle] = torch.arange(middle)
        position_ids[row, middle:end] = torch.arange(start, start + len(bad))
        predictor[row, start:end] = torch.arange(start - 1, end - 1)
        predictor[row, middle] = start - 1
        part[row, :start], part[row, start:middle], part[row, middle:end] = PROMPT, CHOSEN, REJECTED
    return {"input_ids": input_ids, "position_ids": position_ids, "predictor": predictor, "part": part}


def choose_pair_attention(model: Any, longest: int) -> None:
    """As `choose_attention`, but one that takes a mask of who sees whom, which flash attention does not."""
    if choose_attention(model, longest) not in _TAKE_MASKS:
        model.set_attn_implementation("sdpa")


def _shared_prompt_masks(causal: Any, part: Any, position_ids: Any) -> Any:
    """Who sees whom: everything before in the same part and in the prompt, within the layer's sliding window."""
    import torch

    config = causal.config.get_text_config()
    width = part.shape[1]
    earlier = torch.ones(width, width, dtype=torch.bool, device=part.device).tril()
    same = part[:, :, None] == part[:, None, :]
    seen = earlier & (same | (part == PROMPT)[:, None, :])
    kinds = set(getattr(config, "layer_types", None) or [])
    if not kinds:
        return _as_mask(causal, seen)
    masks = {"full_attention": _as_mask(causal, seen)}
    if "sliding_attention" in kinds:
        distance = position_ids[:, :, None] - position_ids[:, None, :]
        masks["sliding_attention"] = _as_mask(causal, seen & (distance < config.sliding_window))
    return masks


def _as_mask(causal: Any, seen: Any) -> Any:
    """As the attention takes it, (rows, 1, width, width): fused attention a truth value, the plain one a summand."""
    import torch

    seen = seen[:, None]
    if causal.config.get_text_config()._attn_implementation == "sdpa":
        return seen
    return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, torch.finfo(torch.float32).min)


def compute_inside(
    trainer: Any, model: Any, inputs: dict[str, Any], compute: Callable[[Any, dict[str, Any]], Any]
) -> Any:
    """What `compute` makes of the base model inside `model` and `inputs`, called through whatever wraps the model."""
    causal = trainer.accelerator.unwrap_model(model).get_base_model()

    def forward(**given: Any) -> Any:
        with trainer.accelerator.autocast():
            return compute(causal, {name: value for name, value in given.items() if value is not None})

    with computing(causal, forward):
        return model(**inputs)


def score_all(trainer: Any, items: Sequence[Item], score: Callable[[list[Item]], Any]) -> list[Any]:
    """What `score` (a tensor, one row an item) says of every item, asked in batches of similar length without gradient.

    Several processes share the work; each gets all the answers.
    """
    import torch
    from accelerate.utils import gather_object

    size = trainer.args.per_device_eval_batch_size
    order = sorted(range(len(items)), key=lambda index: items[index].length)
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    found: dict[int, Any] = {}
    for batch in batches[trainer.accelerator.process_index :: trainer.accelerator.num_processes]:
        with torch.no_grad(), trainer.accelerator.autocast():
            found.update(zip(batch, score([items[index] for index in batch]).tolist(), strict=True))
    everything = dict(gather_object(list(found.items())))
    return [everything[index] for index in range(len(items))]


@contextmanager
def without_dropout(model: Any) -> Iterator[None]:
    """Switch the model's dropout off: the ratio of two models' probabilities must not hold its noise."""
    import torch

    layers = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    shares = [layer.p for layer in layers]
    for layer in layers:
        layer.p = 0.0
    try:
        yield
    finally:
        for layer, share in zip(layers, shares, strict=True):
            layer.p = share
