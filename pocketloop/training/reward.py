"""A reward model: an adapter of its own over the same base, with a scalar head, that scores the better answer higher.

The loss is Bradley and Terry's: -log sigmoid(r(chosen) - r(rejected)), as in Ouyang et al. ("Training language models
to follow instructions with human feedback", 2022), whose reward model starts, like ours, from the fine-tuned model.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.reports import Estimate, StageTraining
from pocketloop.models.bases import base_folder
from pocketloop.models.chat import load_tokenizer
from pocketloop.training.adapters import save_adapter
from pocketloop.training.hardware import choose_attention
from pocketloop.training.logprobs import score_all
from pocketloop.training.preference_data import EncodedPair, training_pairs
from pocketloop.training.stage import StageRun, run_trainer, trainer_arguments

REWARD_MODEL = "reward_model"
"""The folder, inside the stage's, that holds the adapter with its head."""


def train_reward(stage: StageRun) -> StageTraining:
    """Train a reward model on the release's pairs and save it; the stage's own adapter stays as it is.

    Curves: `loss`, `validation_loss` (nats a pair), `accuracy` and `margin` (held out where there are pairs to hold
    out). The metric `ranking_accuracy` is the share of held-out pairs whose better answer has the higher reward.

    Raises:
        DataError: no pair can be learnt from.
        ModelError: the loss is no longer a number.
    """
    from datasets import Dataset
    from transformers import set_seed
    from trl import RewardConfig

    pairs, held_out = training_pairs(stage)
    set_seed(stage.seed)
    model = _new_reward_model(stage)
    choose_attention(model, max(pair.length for pair in pairs))
    rewarding = replace(stage, model=model)
    trainer = _reward_trainer_class()(
        rewarding,
        model=model,
        args=RewardConfig(
            **trainer_arguments(rewarding, len(pairs), bool(held_out)),
            train_sampling_strategy="group_by_length",
            remove_unused_columns=False,
            max_length=None,
        ),
        train_dataset=Dataset.from_list([_row(pair) for pair in pairs]),
        eval_dataset=Dataset.from_list([_row(pair) for pair in held_out]) if held_out else None,
        processing_class=stage.tokenizer,
    )
    seen = "eval_" if held_out else ""
    curves = {"accuracy": f"{seen}accuracy", "margin": f"{seen}margin"}
    report = run_trainer(rewarding, trainer, len(pairs), {"loss": "loss", "validation_loss": "eval_loss"} | curves)
    save_adapter(model, stage.folder / REWARD_MODEL, stage.base.base)
    if held_out:
        right = [chosen > rejected for chosen, rejected in score_pairs(trainer, held_out)]
        report.metrics["ranking_accuracy"] = Estimate.of_count(sum(right), len(right))
    return report


def load_reward_model(folder: Path, base: BaseConfig, dtype: str = "float32") -> Any:
    """The reward model in `folder` over `base`, to score with: frozen, its adapter merged into the weights.

    A plain `...ForSequenceClassification` of transformers with one label: `model(input_ids, attention_mask).logits` has
    the shape (rows, 1), the score of each row at its last token that is no padding.

    Raises:
        ModelError: the folder holds no reward model.
    """
    import torch
    from peft import PeftModel

    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelError(f"{folder} holds no reward model; a `reward` stage before this one writes it")
    pad = load_tokenizer(base_folder(base), base.chat_template).pad_token_id
    scorer = _load_scorer(base, pad, "float32")  # merging into fewer bits would round the adapter away
    merged = PeftModel.from_pretrained(scorer, str(folder)).merge_and_unload()
    return merged.to(getattr(torch, dtype)).requires_grad_(False).eval()


def score_pairs(trainer: Any, pairs: Sequence[EncodedPair]) -> list[list[float]]:
    """[reward of the chosen answer, reward of the rejected one] of each pair, by the trainer's model as it is now."""
    model = trainer.accelerator.unwrap_model(trainer.model)

    def score(batch: list[EncodedPair]) -> Any:
        inputs = trainer._prepare_inputs(trainer.data_collator([_row(pair) for pair in batch]))
        return model(**inputs, use_cache=False).logits.float().view(2, -1).T

    return score_all(trainer, pairs, score)


def _new_reward_model(stage: StageRun) -> Any:
    """A peft model: a scorer over the base, an adapter that starts as the stage's is now, and a fresh head."""
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    scorer = _load_scorer(stage.base, stage.tokenizer.pad_token_id, "bfloat16" if stage.half else "float32")
    settings = json.loads((stage.before / "adapter_config.json").read_text(encoding="utf-8"))
    plain = settings["peft_type"] == "LORA"  # AdaLoRA's factors are of another form: its reward model starts afresh
    shape = ["r", "lora_alpha", "lora_dropout", "target_modules"]
    kept = [*shape, "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"] if plain else shape
    model = get_peft_model(scorer, LoraConfig(task_type="SEQ_CLS", **{key: settings[key] for key in kept}))
    if plain:
        weights = load_file(stage.before / "adapter_model.safetensors")
        set_peft_model_state_dict(model, weights | {"base_model.model.score.weight": scorer.score.weight.detach()})
    return model


def _load_scorer(base: BaseConfig, pad: int, dtype: str) -> Any:
    """The base with a random scalar head (float32) in place of the one over its vocabulary."""
    import torch
    from transformers import AutoModelForSequenceClassification

    scorer = AutoModelForSequenceClassification.from_pretrained(
        base_folder(base), num_labels=1, dtype=getattr(torch, dtype), use_safetensors=True, attn_implementation="sdpa"
    )
    scorer.score.float()
    scorer.config.get_text_config().pad_token_id = pad  # a row's score stands at its last token that is none of these
    return scorer


def _row(pair: EncodedPair) -> dict[str, Any]:
    prompt = pair.prompt_ids
    return {
        "chosen_ids": prompt + pair.chosen_ids,
        "rejected_ids": prompt + pair.rejected_ids,
        "length": pair.length,
    }


@cache
def _reward_trainer_class() -> type[Any]:
    from trl import RewardTrainer

    class CountingRewardTrainer(RewardTrainer):
        def __init__(self, stage: StageRun, **more: Any) -> None:
            self.stage = stage
            super().__init__(**more)

        def compute_loss(self, model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> Any:
            if model.training:
                real = int(inputs["attention_mask"].sum())
                self.stage.tokens += real
                self.stage.padding += inputs["attention_mask"].numel() - real
            return super().compute_loss(model, inputs, *more, **named)

        def floating_point_ops(self, inputs: dict[str, Any]) -> int:
            return 0

    return CountingRewardTrainer
