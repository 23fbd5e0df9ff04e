"""trl's SFTTrainer with a loss that computes nothing but the loss."""

from functools import cache
from typing import Any

from pocketloop.training.stage import StageRun
from pocketloop.training.tokens import IGNORED


@cache
def answer_trainer_class() -> type[Any]:
    """A subclass of `trl.SFTTrainer` for small models on few cores.

    trl's own losses also compute each token's entropy and the best token, and project either every position to the
    vocabulary or each one twice; for a model whose vocabulary is a third of its parameters that is a quarter of a
    step. Here only the positions that predict an answer's token are projected, once, and only their mean cross entropy
    (nats) is taken.
    """
    import torch
    from torch.nn.functional import cross_entropy
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
            causal = self.accelerator.unwrap_model(model).get_base_model()
            labels = inputs["labels"][:, 1:]
            learnt = labels != IGNORED
            with self.accelerator.autocast():
                hidden = causal.base_model(
                    input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
                ).last_hidden_state
                logits = causal.get_output_embeddings()(hidden[:, :-1][learnt]).float()
            cap = getattr(causal.config.get_text_config(), "final_logit_softcapping", None)
            if cap:
                logits = cap * torch.tanh(logits / cap)
            loss = cross_entropy(logits, labels[learnt])
            if model.training:
                self.stage.tokens += int(inputs["attention_mask"].sum())
            return (loss, {}) if return_outputs else loss

        def floating_point_ops(self, inputs: dict[str, Any]) -> int:
            return 0  # nobody reads the count, and making it walks over all parameters at every step

    return AnswerTrainer
