"""Which state of a stage is kept, and when a stage ends before its time."""

import math
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from pocketloop.contracts.errors import ModelError
from pocketloop.training.checkpoints import StageState

_MUCH_WORSE = 3.0
_PATIENT_LOGS = 10
_LIKELIHOODS = ("sft", "dpo", "kto", "reward", "distill")
"""Stages whose loss falls when they learn; a policy gradient's loss says nothing by its size."""


def evaluates_after(step: int, steps: int, steps_per_epoch: int, evaluations: int) -> bool:
    """Whether held-out data is scored after `step`: `evaluations` times an epoch, evenly, and at the very end."""
    return step == steps or step * evaluations // steps_per_epoch > (step - 1) * evaluations // steps_per_epoch


@cache
def selection_callback_class() -> type[Any]:
    """A `TrainerCallback` that has held-out data scored, keeps the best state, and ends a stage that gets no better."""
    import torch
    from transformers import TrainerCallback

    class SelectionCallback(TrainerCallback):
        def __init__(
            self,
            trainer: Any,
            stage: Any,
            metric: str,
            greater: bool,
            settled: Callable[[int], bool],
        ) -> None:
            self.trainer = trainer
            self.stage = stage
            self.metric = metric
            self.sign = 1.0 if greater else -1.0
            self.settled = settled
            self.state = StageState()
            self.best: dict[str, Any] = {}
            self.stopped = ""
            self.started = time.perf_counter()
            self.losses: list[float] = []
            self.diverging = 0

        def state_now(self) -> StageState:
            """What a checkpoint says of this stage."""
            self.state.tokens = self.stage.tokens
            seconds = self.state.seconds + time.perf_counter() - self.started
            return StageState(**{**vars(self.state), "seconds": seconds})

        def resume(self, state: StageState, best: dict[str, Any]) -> None:
            """Go on from a checkpoint."""
            self.state, self.best = state, best
            self.stage.tokens = state.tokens

        def on_step_end(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
            if args.eval_strategy != "no":
                per_epoch = max(1, len(train_dataloader) // args.gradient_accumulation_steps)
                control.should_evaluate = evaluates_after(
                    state.global_step, state.max_steps, per_epoch, self.stage.config.evaluations
                )

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            value = (metrics or {}).get(self.metric)
            if value is None or not self.settled(state.global_step):
                return
            if not math.isfinite(value):
                raise ModelError(
                    f"training diverged: {self.metric} is {value} at step {state.global_step} of {state.max_steps}; "
                    f"lower {self.stage.key}.learning_rate (now {args.learning_rate:g})"
                )
            if self.state.best_value is None or self.sign * value > self.sign * self.state.best_value:
                self.state.best_value, self.state.best_step, self.state.worse = value, state.global_step, 0
                self.best = {name: weight.detach().cpu().clone() for name, weight in self._trained()}
                return
            self.state.worse += 1
            patience = self.stage.config.patience
            if patience is not None and self.state.worse >= patience and state.global_step < state.max_steps:
                self.stopped = (
                    f"{self.metric.removeprefix('eval_')} on held-out data got no better in {self.state.worse} scores "
                    f"after step {self.state.best_step}"
                )
                control.should_training_stop = True

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            loss = (logs or {}).get("loss")
            if loss is None or self.stage.name not in _LIKELIHOODS:
                return
            self.losses.append(loss)
            worst_allowed = max(_MUCH_WORSE * min(self.losses), self.losses[0])
            self.diverging = self.diverging + 1 if loss > worst_allowed else 0
            if self.diverging >= _PATIENT_LOGS:
                raise ModelError(
                    f"training diverged: the loss was {min(self.losses):.3g} and has been above {worst_allowed:.3g} "
                    f"for {self.diverging} reports up to step {state.global_step} of {state.max_steps}; lower "
                    f"{self.stage.key}.learning_rate (now {args.learning_rate:g}) or raise {self.stage.key}.warmup"
                )

        def keep_best(self, last_step: int) -> int:
            """Put the best state's weights back; returns its step."""
            step = self.state.best_step
            if step is None or step == last_step:
                return last_step
            with torch.no_grad():
                for name, weight in self._trained():
                    weight.copy_(self.best[name])
            return step

        def _trained(self) -> list[tuple[str, Any]]:
            return [(name, weight) for name, weight in self.trainer.model.named_parameters() if weight.requires_grad]

    return SelectionCallback
