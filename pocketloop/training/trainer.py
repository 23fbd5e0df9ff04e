"""trl's SFTTrainer with a loss that computes nothing but the loss."""

from functools import cache
from typing import Any

from pocketloop.training.losses import answer_states, computing, project, total_cross_entropy
from pocketloop.training.stage import StageRun


@cache
def answer_trainer_class() -> type[Any]:
    """A subclass of `trl.SFTTrainer` for small models on few cores.

    trl's own losses also compute each token's entropy and the best token, and project either every position to the
    vocabulary or each one twice; for a model whose vocabulary is a third of its parameters that is a quarter of a
    step. Here only the positions that predict an answer's token are projected, once, and only their mean cross entropy
    (nats) is taken. A subclass with another loss overrides `answer_loss`.
    """
    import torch
    from trl import SFTTrainer

    class AnswerTrainer(SFTTrainer):
        def __init__(self, stage: StageRun, **more: Any) -> None:
            self.stage = stage
            super().__init__(**more)

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            if model.training:
                self._count(inputs)
            causal = self.accelerator.unwrap_model(model).get_base_model()

            def loss_of(**given: Any) -> Any:
                with self.accelerator.autocast():
                    return self.answer_loss(causal, {name: value for name, value in given.items() if value is not None})

            with computing(causal, loss_of):
                loss = model(**inputs)
            return (loss, {}) if return_outputs else loss

        def answer_loss(self, causal: Any, inputs: dict[str, Any]) -> Any:
            """Mean cross entropy of the batch's answer tokens; over all processes' tokens where there are several."""
            hidden, tokens = self.answer_states(causal, inputs)
            count = torch.tensor(float(len(tokens)), device=hidden.device)
            if self.accelerator.num_processes > 1:  # gradients are averaged over processes, of which one has more
                count = self.accelerator.reduce(count, "mean")
            return total_cross_entropy(causal, hidden, tokens) / count

        def answer_states(self, causal: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
            """See `losses.answer_states`."""
            return answer_states(causal, inputs)

        def answer_logits(self, causal: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
            """Logits [n, vocabulary] at the n positions whose next token is learnt, and these tokens [n]."""
            hidden, tokens = answer_states(causal, inputs)
            return project(causal, hidden), tokens

        def _count(self, inputs: dict[str, Any]) -> None:
            mask = inputs.get("attention_mask")
            real = int(inputs["real_tokens"] if mask is None else mask.sum())
            self.stage.tokens += real
            self.stage.padding += inputs["input_ids"].numel() - real

        def floating_point_ops(self, inputs: dict[str, Any]) -> int:
            return 0  # nobody reads the count, and making it walks over all parameters at every step

    return AnswerTrainer
