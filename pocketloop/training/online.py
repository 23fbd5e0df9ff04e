"""What the stages that learn from their own answers have in common: prompts, rewards, and how far they may go."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import DataError, ModelError
from pocketloop.contracts.events import Conversation
from pocketloop.contracts.examples import Example
from pocketloop.contracts.training import GroupConfig, OnlineConfig
from pocketloop.models.chat import encode_prompt
from pocketloop.training.reward import load_reward_model
from pocketloop.training.rewards import is_verifiable, verifier
from pocketloop.training.stage import StageRun
from pocketloop.training.tokens import end_of_turn

UNFINISHED_PENALTY = 1.0
"""What an answer that does not end by itself loses against a reward model's score."""

_SCORED_AT_ONCE = 64
_BOUND_FILE = "within-bound.safetensors"

Weights = dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    """A prompt of the training split: its example, the conversation, and the very token ids of inference."""

    example: Example
    conversation: Conversation
    ids: list[int]


Reward = Callable[[Sequence[int], Sequence[str], Sequence[list[int]]], list[float]]
"""Rewards of answers: places of their prompts, texts, and token ids up to the end of the turn, if they have one."""


def online_config(stage: StageRun) -> OnlineConfig:
    """The settings of a stage that learns from its own answers."""
    assert isinstance(stage.config, OnlineConfig)
    return stage.config


def training_prompts(stage: StageRun) -> list[Prompt]:
    """Prompts of the training split in an order drawn by the stage's seed, `prompts` at most.

    Left out and counted: what leaves no room for an answer, and, for the verifier, what no program can check.

    Raises:
        DataError: none is left.
    """
    config = online_config(stage)
    verified = isinstance(config, GroupConfig) and config.reward == "verifier"
    examples = list(stage.data.train.examples)
    random.Random(stage.seed).shuffle(examples)
    prompts: list[Prompt] = []
    for example in examples:
        if len(prompts) == config.prompts:
            break
        if verified and not is_verifiable(stage.task, example):
            _leave_out(stage, "no program can check an answer")
            continue
        conversation = stage.task.conversation(example.prompt, example.role)
        ids = encode_prompt(stage.tokenizer, conversation, stage.task.tools)
        if len(ids) + config.max_new_tokens > config.max_length:
            _leave_out(stage, "no room for an answer within max_length")
            continue
        prompts.append(Prompt(example, conversation, ids))
    if not prompts:
        why = "; ".join(f"{count}: {reason}" for reason, count in stage.left_out.items()) or "there are no examples"
        raise DataError(f"{stage.key}: no prompt to learn from ({why})")
    return prompts


def _leave_out(stage: StageRun, reason: str) -> None:
    stage.left_out[reason] = stage.left_out.get(reason, 0) + 1


def stopping_tokenizer(stage: StageRun, prompts: list[Prompt]) -> Any:
    """A copy of the tokenizer for trl's online trainers, which know one token that ends answers and one that pads.

    Its eos is the template's end of turn. Its padding is a token of no prompt, because trl's PPO takes every padding
    token in a row for padding.

    Raises:
        ModelError: there is no such token.
    """
    tokenizer = deepcopy(stage.tokenizer)
    end = end_of_turn(tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    used = {end}.union(*(prompt.ids for prompt in prompts))
    if tokenizer.pad_token_id in used:
        free = next((token for token in sorted(tokenizer.all_special_ids) if token not in used), None)
        if free is None:
            raise ModelError(f"{stage.key}: the tokenizer of base {stage.base.base} has no token to pad with")
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(free)
    tokenizer.padding_side = "left"
    return tokenizer


def make_reward(stage: StageRun, prompts: list[Prompt], source: str) -> Reward:
    """What the answers to `prompts` are worth, by a `verifier`, a `judge`, or the reward `model` of an earlier stage.

    Verifier and judge give rewards in [0, 1], nothing for an answer that does not end by itself.
    """
    end = end_of_turn(stage.tokenizer)
    if source == "model":
        return _model_reward(stage, prompts, end)
    if source == "judge":
        judge = stage.judge
        assert judge is not None
        rate = lambda places, texts: judge([prompts[place].conversation for place in places], texts)  # noqa: E731
    else:
        verify = verifier(stage.task)
        rate = lambda places, texts: [  # noqa: E731
            verify(text, prompts[place].example) for place, text in zip(places, texts, strict=True)
        ]

    def reward(places: Sequence[int], texts: Sequence[str], answers: Sequence[list[int]]) -> list[float]:
        ended = [at for at, ids in enumerate(answers) if ids and ids[-1] == end]
        rated = rate([places[at] for at in ended], [texts[at] for at in ended]) if ended else []
        found = dict(zip(ended, rated, strict=True))
        return [found.get(at, 0.0) for at in range(len(answers))]

    return reward


def _model_reward(stage: StageRun, prompts: list[Prompt], end: int) -> Reward:
    import torch

    assert stage.reward_model is not None
    model = load_reward_model(stage.reward_model, stage.base, "bfloat16" if stage.half else "float32")
    model.to(stage.model.device)
    pad = model.config.get_text_config().pad_token_id

    def reward(places: Sequence[int], texts: Sequence[str], answers: Sequence[list[int]]) -> list[float]:
        rows = [prompts[place].ids + ids for place, ids in zip(places, answers, strict=True)]
        scores: list[float] = []
        for start in range(0, len(rows), _SCORED_AT_ONCE):
            batch = rows[start : start + _SCORED_AT_ONCE]
            width = max(len(row) for row in batch)
            ids = torch.tensor([row + [pad] * (width - len(row)) for row in batch], device=model.device)
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=model.device)
            with torch.no_grad():
                scores += model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0].float().tolist()
        unfinished = [not ids or ids[-1] != end for ids in answers]
        return [score - UNFINISHED_PENALTY * cut for score, cut in zip(scores, unfinished, strict=True)]

    return reward


class KlBound:
    """Keeps the newest weights whose mean divergence from the reference, in nats an answer, lay within the bound.

    Attributes:
        within: those weights, by name; `step` is the optimizer step after which they stood.
        stopped: why the stage ended, once it did.
    """

    def __init__(self, model: Any, max_kl: float, checkpoint: Path | None = None) -> None:
        self._trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._max_kl = max_kl
        self.within = self.copy()
        self.step = 0
        self.stopped = ""
        if checkpoint is not None:
            self._load(checkpoint)

    def copy(self) -> Weights:
        """The weights as they are now."""
        return {name: weight.detach().clone() for name, weight in self._trained.items()}

    def allows(self, kl: float, weights: Weights, step: int) -> bool:
        """Take note of the divergence that `weights`, those after `step`, were found to have.

        If it is too much, the model gets the last weights back that had less.
        """
        import torch

        if not kl > self._max_kl:  # no number at all is for the check of the loss to refuse
            self.within, self.step = weights, step
            return True
        self.stopped = f"{kl:.2f} nats an answer from the adapter before, more than max_kl {self._max_kl:g}"
        with torch.no_grad():
            for name, weight in self._trained.items():
                weight.copy_(self.within[name])
        return False

    def save(self, checkpoint: Path) -> None:
        """Add what is kept here to a checkpoint."""
        from safetensors.torch import save_file

        tensors = {name: tensor.contiguous() for name, tensor in self.within.items()}
        save_file(tensors, checkpoint / _BOUND_FILE, metadata={"step": str(self.step)})

    def _load(self, checkpoint: Path) -> None:
        from safetensors import safe_open

        with safe_open(checkpoint / _BOUND_FILE, "pt") as file:
            self.within = {name: file.get_tensor(name).to(self._trained[name].device) for name in file.keys()}  # noqa: SIM118
            self.step = int(file.metadata()["step"])


@contextmanager
def sampling(model: Any) -> Iterator[None]:
    """A peft model that answers as it will on a phone, without dropout; what trl leaves behind is undone at the end.

    With dropout, answers would be drawn from one model, and their likelihood taken from another.
    """
    import torch

    dropouts = [(module, module.p) for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    settings = deepcopy(model.generation_config)
    config = model.config.get_text_config()
    changed = ("bos_token_id", "eos_token_id", "pad_token_id", "use_cache")
    values = {name: getattr(config, name, None) for name in changed}
    for module, _ in dropouts:
        module.p = 0.0
    try:
        yield
    finally:
        for module, p in dropouts:
            module.p = p
        model.get_base_model().generation_config = settings
        for name, value in values.items():
            setattr(config, name, value)
        if "ref" in model.peft_config:
            model.set_adapter("default")
            model.delete_adapter("ref")
