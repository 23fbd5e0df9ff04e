"""PPO: the adapter's own answers against a reward model, with a value model of its own (trl.experimental.ppo).

Schulman et al. ("Proximal Policy Optimization Algorithms", 2017), as Ouyang et al. (2022) use it on language models:
the reward model's score at an answer's end, less `kl` for each nat of divergence from the adapter before the stage.
"""

import gc
import warnings
from dataclasses import replace
from functools import cache
from typing import Any

from pocketloop.contracts.reports import StageTraining
from pocketloop.contracts.training import PpoConfig
from pocketloop.training.hardware import choose_attention
from pocketloop.training.online import (
    UNFINISHED_PENALTY,
    KlBound,
    Prompt,
    sampling,
    stopping_tokenizer,
    training_prompts,
)
from pocketloop.training.reward import load_reward_model
from pocketloop.training.stage import StageRun, run_trainer, trainer_arguments

_CURVES = {name: name for name in ("loss", "reward", "kl", "entropy", "clip_share")}


def train_ppo(stage: StageRun) -> StageTraining:
    """Raise the reward model's score of the adapter's own answers.

    Each round draws `batch_size` answers and takes `inner_epochs` optimizer steps over them. The value model starts as
    the reward model with an adapter and a head that learn along. Curves: `loss`, `reward` (mean score of the round's
    answers), `kl` and `entropy` (nats an answer) and `clip_share` (of tokens whose likelihood moved beyond `clip`).
    When the answers of a round show more divergence than `max_kl`, the stage ends with the weights of the round before.

    trl's loop cannot be entered in its middle: a killed stage starts over, to the same weights.

    Raises:
        DataError: there is no prompt to learn from.
        ModelError: the loss is no longer a number, or there is no reward model.
    """
    config = stage.config
    assert isinstance(config, PpoConfig)
    prompts = training_prompts(stage)
    choose_attention(stage.model, max(len(prompt.ids) for prompt in prompts) + config.max_new_tokens)
    # trl draws answers outside of autocast, where the adapter's inputs have to be cast to its own precision
    casting = replace(stage, half=False)
    with sampling(stage.model):
        stage.model.load_adapter(str(stage.before), "ref")
        trainer = _make_trainer(stage, casting, config, prompts)
        report = run_trainer(casting, trainer, len(prompts), _CURVES, resumable=False)
    bound = trainer.bound
    steps = report.steps * config.inner_epochs
    return report.model_copy(
        update={
            "steps": steps,
            "curves": {
                name: [(at * config.inner_epochs, value) for at, value in points]
                for name, points in report.curves.items()
            },
            "stopped": bound.stopped,
            "best_step": bound.step if bound.stopped else steps,
        }
    )


def _make_trainer(stage: StageRun, casting: StageRun, config: PpoConfig, prompts: list[Prompt]) -> Any:
    from datasets import Dataset
    from transformers import set_seed

    assert stage.reward_model is not None
    reward_model = load_reward_model(stage.reward_model, stage.base, "bfloat16" if stage.half else "float32")
    value_model = _value_model(stage)
    set_seed(stage.seed)
    arguments = trainer_arguments(stage, len(prompts), evaluate=False) | {
        "per_device_train_batch_size": min(config.batch_size, len(prompts)),
        "response_length": config.max_new_tokens,
        "temperature": config.temperature,
        "stop_token": "eos",
        "missing_eos_penalty": UNFINISHED_PENALTY,
        "num_ppo_epochs": config.inner_epochs,
        "cliprange": config.clip,
        "kl_coef": config.kl,
        "model_adapter_name": "default",
        "ref_adapter_name": "ref",
        "num_sample_generations": 0,
    }
    configure, trainer_class = _trainer_classes()
    return trainer_class(
        casting,
        config.max_kl,
        args=configure(**arguments),
        processing_class=stopping_tokenizer(stage, prompts),
        model=stage.model,
        ref_model=None,
        reward_model=reward_model,
        value_model=value_model,
        train_dataset=Dataset.from_list([{"input_ids": prompt.ids} for prompt in prompts]),
    )


def _value_model(stage: StageRun) -> Any:
    """The reward model with a fresh adapter, of the stage's shape, and its head to learn."""
    from peft import LoraConfig, get_peft_model

    assert stage.reward_model is not None
    shape = stage.model.peft_config["default"]
    scorer = load_reward_model(stage.reward_model, stage.base, "float32")
    adapted = get_peft_model(
        scorer,
        LoraConfig(
            task_type="SEQ_CLS", r=stage.lora.r, lora_alpha=stage.lora.alpha, target_modules=shape.target_modules
        ),
    )
    return adapted.get_base_model()  # with the adapter in its layers: trl asks it for its backbone and head by name


@cache
def _trainer_classes() -> tuple[type[Any], type[Any]]:
    """trl's configuration, and its trainer with our reports and our bound."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental: trl is pinned to a version that we tested
        from trl.experimental.ppo import PPOConfig, PPOTrainer

    class BoundReached(Exception):
        """Leaves trl's loop, which heeds no wish to stop."""

    class BoundedTrainer(PPOTrainer):
        def __init__(self, stage: StageRun, max_kl: float, **more: Any) -> None:
            super().__init__(**more)
            self.stage = stage
            self.bound = KlBound(stage.model, max_kl)
            self.latest = self.bound.copy()
            self.accelerator.print = lambda *_, **__: None

        def train(self) -> None:
            counting = self.stage.model.register_forward_pre_hook(self._count, with_kwargs=True)
            gc.freeze()  # trl collects garbage at every step: what is there already need not be searched each time
            try:
                super().train()
            except BoundReached:
                pass
            finally:
                gc.unfreeze()
                counting.remove()

        def _count(self, module: Any, arguments: Any, named: dict[str, Any]) -> None:
            if torch.is_grad_enabled():
                self.stage.tokens += int(named["attention_mask"].sum())

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            """Say it in our words, and see how far the answers of this round were from the adapter before."""
            kl = logs["objective/kl"]
            super().log(
                {
                    "loss": logs["loss/policy_avg"] + self.args.vf_coef * logs["loss/value_avg"],
                    "reward": logs["objective/scores"],
                    "kl": kl,
                    "entropy": logs["objective/entropy"],
                    "clip_share": logs["policy/clipfrac_avg"],
                }
            )
            rounds = self.state.global_step - 1
            if not self.bound.allows(kl, self.latest, rounds * self.args.num_ppo_epochs):
                raise BoundReached
            self.latest = self.bound.copy()

    return PPOConfig, BoundedTrainer
