"""Kahneman-Tversky optimization: trl's KTOTrainer on single answers that people found good or bad.

Ethayarajh et al., "KTO: Model Alignment as Prospect Theoretic Optimization" (2024), equations 7 and 8: with the reward
r = log pi(y|x) - log ref(y|x) and the reference point z = max(0, mean r over answers put behind other prompts), a good
answer costs weight * (1 - sigmoid(beta * (r - z))) and a bad one weight * (1 - sigmoid(beta * (z - r))). The weights
are inverse to the counts, so that both kinds weigh the same in total.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

from pocketloop.contracts.reports import Estimate, StageTraining
from pocketloop.contracts.training import KtoConfig
from pocketloop.training.dpo import compare_preferences, pairs_log_probs
from pocketloop.training.logprobs import (
    answer_log_probs,
    choose_pair_attention,
    compute_inside,
    score_all,
    without_dropout,
)
from pocketloop.training.preference_data import EncodedRating, encode_pairs, training_ratings
from pocketloop.training.stage import StageRun, run_trainer, trainer_arguments

_SORTED_BATCHES = 50


@dataclass(frozen=True)
class RatedRow:
    """A rated answer, and the `other` answer that is put behind the same prompt for the reference point."""

    rating: EncodedRating
    other: list[int]

    @property
    def length(self) -> int:
        """Tokens of the prompt with the longer of the two."""
        return len(self.rating.prompt_ids) + max(len(self.rating.completion_ids), len(self.other))

    def columns(self, reference: Sequence[float] | None = None) -> dict[str, Any]:
        """As trl's collator takes it; `reference` holds the reference's log-probabilities of both answers."""
        asked = {} if reference is None else {"ref_logps": reference[0], "ref_KL_logps": reference[1]}
        return vars(self.rating) | {"KL_completion_ids": self.other} | asked


def train_kto(stage: StageRun) -> StageTraining:
    """Make answers that people found good more probable, and those they found bad less, against the stage's start.

    Curves: `loss`, `validation_loss` (both between 0 and 1), `kl` (the reference point, nats an answer), `accuracy`
    (share of answers whose reward lies on the right side of the reference point) and `margin` (of the mean reward of
    good answers over that of bad ones, times beta); all but `loss` are held out where there are answers to hold out.
    The metric `rated_accuracy` is that accuracy over all held-out answers at the end; held-out pairs, where there are
    any, give the metrics of `train_dpo`.

    Raises:
        DataError: nothing can be learnt from, or all of it was found good, or all bad.
        ModelError: the loss is no longer a number.
    """
    ratings, held_out_ratings = training_ratings(stage)
    held_out_pairs = encode_pairs(stage, stage.data.validation.pairs)
    size = stage.config.batch_size
    rows = with_others(in_batches(ratings, size, stage.seed), size)
    held_out = with_others(sorted(held_out_ratings, key=lambda one: one.length), 2 * size)
    choose_pair_attention(stage.model, max(row.length for row in rows))
    with without_dropout(stage.model):
        trainer = make_trainer(stage, rows, held_out)
        pairs_before = pairs_log_probs(trainer, held_out_pairs)
        before = trainer.ask_reference(rows, held_out)
        seen = "eval_" if held_out else ""
        noted = {"kl": "kl", "accuracy": "rewards/accuracies", "margin": "rewards/margins"}
        curves = {"loss": "loss", "validation_loss": "eval_loss"} | {ours: seen + key for ours, key in noted.items()}
        report = run_trainer(stage, trainer, len(rows), curves)
        if held_out:
            after = rows_log_probs(trainer, held_out)
            report.metrics["rated_accuracy"] = _rated_accuracy(held_out, before, after)
        if held_out_pairs:
            report.metrics.update(compare_preferences(pairs_before, pairs_log_probs(trainer, held_out_pairs)))
    return report


def in_batches(ratings: Sequence[EncodedRating], size: int, seed: int) -> list[EncodedRating]:
    """Shuffled so that each run of `size` answers is of similar length; a shorter last run stays last."""
    shuffled = random.Random(seed).sample(list(ratings), len(ratings))
    width = size * _SORTED_BATCHES
    batches = []
    for start in range(0, len(shuffled), width):
        some = sorted(shuffled[start : start + width], key=lambda one: one.length)
        batches += [some[at : at + size] for at in range(0, len(some), size)]
    full = [batch for batch in batches if len(batch) == size]
    random.Random(seed).shuffle(full)
    return [one for batch in [*full, *(batch for batch in batches if len(batch) < size)] for one in batch]


def with_others(ratings: Sequence[EncodedRating], size: int) -> list[RatedRow]:
    """Give every answer's prompt the answer before it in its batch of `size`; the first one gets the last one's.

    So a batch's reference point is made of the very answers that it is compared with. An answer alone in its batch gets
    that of the batch before.
    """
    rows: list[RatedRow] = []
    for start in range(0, len(ratings), size):
        batch = ratings[start : start + size]
        before = batch[-1] if len(batch) > 1 else ratings[start - 1]
        for rating in batch:
            rows.append(RatedRow(rating, before.completion_ids))
            before = rating
    return rows


def weights(ratings: Sequence[EncodedRating]) -> tuple[float, float]:
    """(weight of a good answer, weight of a bad one): equal in total, 1 on average."""
    good = sum(one.label for one in ratings)
    return len(ratings) / (2 * good), len(ratings) / (2 * (len(ratings) - good))


def make_trainer(stage: StageRun, rows: list[RatedRow], held_out: list[RatedRow]) -> Any:
    """A trainer over the stage's model that has yet to ask its reference."""
    from datasets import Dataset
    from trl import KTOConfig

    assert isinstance(stage.config, KtoConfig)
    good, bad = weights([row.rating for row in rows])
    return _rated_trainer_class()(
        stage,
        args=KTOConfig(
            **trainer_arguments(stage, len(rows), bool(held_out)),
            train_sampling_strategy="sequential",  # `in_batches` has ordered them
            beta=stage.config.beta,
            desirable_weight=good,
            undesirable_weight=bad,
            remove_unused_columns=False,
            max_length=None,
            disable_dropout=False,  # it would stay off in the stages after this one; `without_dropout` puts it back
        ),
        train_dataset=Dataset.from_list([row.columns() for row in rows]),
        eval_dataset=Dataset.from_list([row.columns() for row in held_out]) if held_out else None,
    )


def rows_log_probs(trainer: Any, rows: Sequence[RatedRow]) -> list[list[float]]:
    """[log pi(answer), log pi(other answer)] of each row, by the trainer's model as it is now."""
    import torch

    causal = trainer.accelerator.unwrap_model(trainer.model).get_base_model()

    def score(batch: list[RatedRow]) -> Any:
        inputs = trainer._prepare_inputs(trainer.data_collator([row.columns() for row in batch]))
        return torch.stack([answer_log_probs(causal, **_part(inputs, prefix)) for prefix in ("", "KL_")], dim=1)

    return score_all(trainer, rows, score)


def _part(inputs: dict[str, Any], prefix: str) -> dict[str, Any]:
    names = {"input_ids": "input_ids", "attention_mask": "attention_mask", "answer_mask": "completion_mask"}
    return {ours: inputs[prefix + theirs] for ours, theirs in names.items()}


def _rated_accuracy(
    rows: Sequence[RatedRow], before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]
) -> Estimate:
    point = max(0.0, fmean(ours[1] - theirs[1] for theirs, ours in zip(before, after, strict=True)))
    rewards = [ours[0] - theirs[0] for theirs, ours in zip(before, after, strict=True)]
    right = [(reward > point) == row.rating.label for row, reward in zip(rows, rewards, strict=True)]
    return Estimate.of_count(sum(right), len(right))


@cache
def _rated_trainer_class() -> type[Any]:
    """A subclass of `trl.KTOTrainer` that projects only what it needs and asks its reference once, before."""
    import torch
    from datasets import Dataset
    from trl import KTOTrainer

    class RatedTrainer(KTOTrainer):
        def __init__(self, stage: StageRun, **more: Any) -> None:
            self.stage = stage
            super().__init__(
                model=stage.model,
                # Something to hold the place: without it trl keeps a second adapter to ask at every step.
                ref_model=torch.nn.Module(),
                processing_class=stage.tokenizer,
                **more,
            )

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # `encode_ratings` and `with_others` have prepared it

        def ask_reference(self, rows: list[RatedRow], held_out: list[RatedRow]) -> list[list[float]]:
            """Let the model as it is now be the reference; returns its log-probabilities of the held-out rows."""
            asked = zip(rows, rows_log_probs(self, rows), strict=True)
            self.train_dataset = Dataset.from_list([row.columns(reference) for row, reference in asked])
            before = rows_log_probs(self, held_out)
            if held_out:
                asked = zip(held_out, before, strict=True)
                self.eval_dataset = Dataset.from_list([row.columns(reference) for row, reference in asked])
            return before

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            def both(causal: Any, given: dict[str, Any]) -> Any:
                with torch.no_grad():
                    others = answer_log_probs(causal, **_part(given, "KL_"))
                return answer_log_probs(causal, **_part(given, "")), others

            log_probs, others = compute_inside(self, model, inputs, both)
            point = self.accelerator.gather((others - inputs["ref_KL_logps"]).mean()).mean().clamp(min=0)
            rewards = log_probs - inputs["ref_logps"]
            good = inputs["label"].bool()
            sided = torch.where(good, rewards - point, point - rewards)
            weight = torch.where(good, self.desirable_weight, self.undesirable_weight)
            loss = (weight * (1 - torch.sigmoid(self.beta * sided))).mean()
            if model.training:
                real = int(inputs["attention_mask"].sum())
                self.stage.tokens += real
                self.stage.padding += inputs["attention_mask"].numel() - real
            noted = self._metrics["train" if model.training else "eval"]
            noted["kl"].append(point.item())
            noted["rewards/accuracies"].extend((sided > 0).float().tolist())
            for name, kind in [("chosen", good), ("rejected", ~good)]:
                noted[f"rewards/{name}"].extend((self.beta * rewards[kind]).tolist())
            return (loss, {}) if return_outputs else loss

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            noted = self._metrics["train" if self.model.training else "eval"]
            if noted["rewards/chosen"] and noted["rewards/rejected"]:
                noted["rewards/margins"] = [fmean(noted["rewards/chosen"]) - fmean(noted["rewards/rejected"])]
            for name in [name for name, values in noted.items() if not values]:
                del noted[name]  # trl divides by their number
            super().log(logs, start_time)

        def floating_point_ops(self, inputs: dict[str, Any]) -> int:
            return 0

    return RatedTrainer
