"""What a training run says of itself while it runs."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pocketloop.contracts.errors import ModelError


@dataclass(frozen=True)
class Progress:
    """Where a stage stands: optimizer steps, mean loss (nats per answer token) since the last report, tokens, seconds.

    `first` is the step at which this process began, `note` what is to be said instead of numbers.
    """

    step: int
    steps: int
    loss: float
    tokens: int
    seconds: float
    first: int = 0
    note: str = ""

    @property
    def seconds_left(self) -> float:
        """Time to the last step at the speed so far."""
        return self.seconds * (self.steps - self.step) / max(self.step - self.first, 1)

    def __str__(self) -> str:
        if self.note:
            return self.note
        speed = self.tokens / max(self.seconds, 1e-9)
        return (
            f"step {self.step}/{self.steps}  loss {self.loss:.3f}  {speed:,.0f} tokens/s  "
            f"{_clock(self.seconds_left)} left"
        )


OnProgress = Callable[[Progress], None]


def print_progress(progress: Progress) -> None:
    """Print one line."""
    print(f"  {progress}", flush=True)


def make_progress_callback(
    key: str, tokens_seen: Callable[[], int], on_progress: OnProgress, every_seconds: float
) -> Any:
    """A `TrainerCallback` that reports at most every `every_seconds`, and stops a run whose loss is no number.

    `key` is where the stage stands in the recipe.
    """
    from transformers import TrainerCallback

    class ProgressCallback(TrainerCallback):
        started = 0.0
        reported = 0.0
        first = 0
        tokens_before = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.started = self.reported = time.monotonic()
            self.first, self.tokens_before = state.global_step, tokens_seen()
            if self.first:
                note = f"{key}: going on at step {self.first} of {state.max_steps}"
                on_progress(Progress(self.first, state.max_steps, math.nan, self.tokens_before, 0.0, self.first, note))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == state.max_steps:
                control.should_log = True  # the Trainer logs every n-th step, which need not be the last

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            loss = (logs or {}).get("loss")
            if loss is None:
                return
            if not math.isfinite(loss):
                raise ModelError(
                    f"training diverged: the loss is {loss} at step {state.global_step} of {state.max_steps}; "
                    f"lower {key}.learning_rate (now {args.learning_rate:g})"
                )
            now = time.monotonic()
            if now - self.reported >= every_seconds or state.global_step == state.max_steps:
                self.reported = now
                tokens = tokens_seen() - self.tokens_before
                on_progress(Progress(state.global_step, state.max_steps, loss, tokens, now - self.started, self.first))

    return ProgressCallback()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
