"""Direct preference optimization: trl's DPOTrainer with shared prompts and a reference that is asked once.

The loss of a pair is -log sigmoid(beta * ((log pi(c) - log ref(c)) - (log pi(r) - log ref(r)))), equation 7 of Rafailov
et al., "Direct Preference Optimization" (2023); the reference is the adapter before the stage. `anchor` adds the
chosen answers' negative log-likelihood a token (Pang et al., "Iterative Reasoning Preference Optimization", 2024),
which keeps the better answers from becoming rarer together with the worse ones.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from pocketloop.contracts.reports import Estimate, StageTraining
from pocketloop.contracts.training import DpoConfig
from pocketloop.training.logprobs import (
    CHOSEN,
    PADDING,
    choose_pair_attention,
    compute_inside,
    pad_pairs,
    pair_log_probs,
    score_all,
    without_dropout,
)
from pocketloop.training.preference_data import EncodedPair, training_pairs
from pocketloop.training.stage import StageRun, run_trainer, trainer_arguments


def train_dpo(stage: StageRun) -> StageTraining:
    """Make the better answer of each of the release's pairs more probable against the worse one.

    Curves: `loss`, `validation_loss` (nats a pair), `accuracy` (share of pairs whose reward, beta times the log-ratio
    to the reference, is higher for the better answer) and `margin` (of these rewards), both held out where there are
    pairs to hold out. Metrics on held-out pairs: `reward_accuracy` is that accuracy at the end; `preference_accuracy`
    is the share of pairs whose better answer is the more probable one, which `preference_accuracy_before` says of the
    reference.

    Raises:
        DataError: no pair can be learnt from.
        ModelError: the loss is no longer a number.
    """
    pairs, held_out = training_pairs(stage)
    choose_pair_attention(stage.model, max(pair.row_length for pair in pairs))
    with without_dropout(stage.model):
        trainer = make_trainer(stage, pairs, held_out)
        before = trainer.ask_reference(pairs, held_out)
        seen = "eval_" if held_out else ""
        curves = {"accuracy": f"{seen}rewards/accuracies", "margin": f"{seen}rewards/margins"}
        report = run_trainer(stage, trainer, len(pairs), {"loss": "loss", "validation_loss": "eval_loss"} | curves)
        if held_out:
            report.metrics.update(compare_preferences(before, pairs_log_probs(trainer, held_out)))
    return report


def make_trainer(stage: StageRun, pairs: list[EncodedPair], held_out: list[EncodedPair]) -> Any:
    """A trainer over the stage's model that has yet to ask its reference."""
    from datasets import Dataset
    from trl import DPOConfig

    rows, held_out_rows = ([vars(pair) | {"length": pair.row_length} for pair in some] for some in (pairs, held_out))
    return pair_trainer_class()(
        stage,
        args=DPOConfig(
            **trainer_arguments(stage, len(pairs), bool(held_out)),
            train_sampling_strategy="group_by_length",
            remove_unused_columns=False,
            max_length=None,
            disable_dropout=False,  # it would stay off in the stages after this one; `without_dropout` puts it back
        ),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(held_out_rows) if held_out else None,
    )


def pairs_log_probs(trainer: Any, pairs: Sequence[EncodedPair]) -> list[list[float]]:
    """[log pi(chosen), log pi(rejected)] of each pair, by the trainer's model as it is now."""
    causal = trainer.accelerator.unwrap_model(trainer.model).get_base_model()

    def score(batch: list[EncodedPair]) -> Any:
        return pair_log_probs(causal, trainer._prepare_inputs(collate([vars(pair) for pair in batch])))

    return score_all(trainer, pairs, score)


def compare_preferences(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> dict[str, Estimate]:
    """What two models' log-probabilities of (chosen, rejected) say about the same pairs; see `train_dpo`."""
    n = len(before)
    margins = [(ours[0] - ours[1]) - (theirs[0] - theirs[1]) for theirs, ours in zip(before, after, strict=True)]
    return {
        "preference_accuracy": Estimate.of_count(sum(chosen > rejected for chosen, rejected in after), n),
        "preference_accuracy_before": Estimate.of_count(sum(chosen > rejected for chosen, rejected in before), n),
        "reward_accuracy": Estimate.of_count(sum(margin > 0 for margin in margins), n),
    }


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of encoded pairs, with the reference's log-probabilities (pairs, 2) where the rows have them."""
    import torch

    columns = [[row[name] for row in rows] for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    reference = {"reference": torch.tensor([row["reference"] for row in rows])} if "reference" in rows[0] else {}
    return pad_pairs(*columns) | reference


@cache
def pair_trainer_class() -> type[Any]:
    """A subclass of `trl.DPOTrainer` whose pairs share their prompt and whose reference is computed once, before."""
    import torch
    from torch.nn.functional import logsigmoid
    from trl import DPOTrainer

    class PairTrainer(DPOTrainer):
        train_dataset: Any
        eval_dataset: Any

        def __init__(self, stage: StageRun, **more: Any) -> None:
            self.stage = stage
            assert isinstance(stage.config, DpoConfig)
            self.settings = stage.config
            super().__init__(
                model=stage.model,
                # Something to hold the place: without it trl keeps a second adapter to ask at every step.
                ref_model=torch.nn.Module(),
                processing_class=stage.tokenizer,
                data_collator=collate,
                **more,
            )

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # `encode_pairs` has prepared it

        def ask_reference(self, pairs: list[EncodedPair], held_out: list[EncodedPair]) -> list[list[float]]:
            """Let the model as it is now be the reference; returns its log-probabilities of the held-out pairs."""
            self.train_dataset = self.train_dataset.add_column("reference", pairs_log_probs(self, pairs))
            before = pairs_log_probs(self, held_out)
            if held_out:
                self.eval_dataset = self.eval_dataset.add_column("reference", before)
            return before

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            log_probs = compute_inside(self, model, inputs, pair_log_probs)
            rewards = self.settings.beta * (log_probs - inputs["reference"])
            margins = rewards[:, 0] - rewards[:, 1]
            loss = -logsigmoid(margins).mean()
            if self.settings.anchor:
                words = self.accelerator.reduce((inputs["part"] == CHOSEN).sum().float(), "mean")
                loss = loss - self.settings.anchor * log_probs[:, 0].sum() / words
            if model.training:
                real = int((inputs["part"] != PADDING).sum())
                self.stage.tokens += real
                self.stage.padding += inputs["part"].numel() - real
            noted = self._metrics["train" if model.training else "eval"]
            noted["rewards/accuracies"].extend((margins > 0).float().tolist())
            noted["rewards/margins"].extend(margins.tolist())
            return (loss, {}) if return_outputs else loss

        def floating_point_ops(self, inputs: dict[str, Any]) -> int:
            return 0

    return PairTrainer
