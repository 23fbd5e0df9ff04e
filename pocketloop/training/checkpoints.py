"""Where a stage stands, on disk: a killed run goes on from there to the weights of one that was never killed.

`transformers` writes the adapter (safetensors), the optimizer, the schedule and the random generators into
`checkpoint-STEP`; `state.json`, written last and renamed into place, marks it as whole and holds what is ours. Its
optimizer and generator files are torch archives, read with `weights_only`: this machine's own state, never published.
The order of the data depends on seed and epoch alone (`fix_data_order`), so that it is the same after a restart.
"""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import TrainingInterrupted
from pocketloop.contracts.files import write_json
from pocketloop.training.processes import is_first, process_count, process_number, wait_for_all

_MARK = "state.json"
_RANKS = "ranks.safetensors"
_SUPERFLUOUS = ("training_args.bin", "README.md", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass
class StageState:
    """What a stage knows about itself beside the trainer's own state.

    `best_value` is the best held-out score, reached at `best_step`; `worse` counts the scores since.
    """

    tokens: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_value: float | None = None
    worse: int = 0


class Termination:
    """Whether this process was asked to end (SIGTERM, as a preempted node is); asked again, it ends at once."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def watched(self) -> Iterator["Termination"]:
        """Take SIGTERM as a wish while inside; only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.getsignal(signal.SIGTERM)

        def ask(number: int, frame: Any) -> None:
            self.asked = True
            signal.signal(signal.SIGTERM, before)

        signal.signal(signal.SIGTERM, ask)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)

    def leave(self, key: str, step: int, steps: int) -> None:
        """Raise what ends the run, if it was asked to end and the stage is not over."""
        if self.asked and step < steps:
            raise TrainingInterrupted(
                f"{key}: asked to end (SIGTERM) at step {step} of {steps}; its state is saved: run the same again, "
                "and training goes on from there"
            )


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`; what a kill left half written is removed."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / _MARK).is_file():
            whole.append(checkpoint)
        elif is_first():
            shutil.rmtree(checkpoint)
    wait_for_all()
    return max(whole, key=_step_of, default=None)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def read_state(checkpoint: Path) -> StageState:
    """What `checkpoint` says of its stage."""
    return StageState(**json.loads((checkpoint / _MARK).read_text(encoding="utf-8")))


def read_best(checkpoint: Path) -> dict[str, Any]:
    """The weights of the best state up to `checkpoint`, by name; empty when there was none."""
    return _read_tensors(checkpoint / _best_file())


def _best_file() -> str:
    """Every process keeps its own part, where the weights are spread over several."""
    return f"best-{process_number()}.safetensors"


def _read_tensors(file: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    tensors: dict[str, Any] = load_file(file) if file.is_file() else {}
    return tensors


@cache
def checkpoint_callback_class() -> type[Any]:
    """A `TrainerCallback` that has the trainer save every so many seconds, and when the process is asked to end."""
    from safetensors.torch import save_file
    from transformers import TrainerCallback

    class CheckpointCallback(TrainerCallback):
        def __init__(
            self, trainer: Any, selection: Any, ranks: Any, every_seconds: float, keep: int, termination: Termination
        ) -> None:
            self.trainer = trainer
            self.selection = selection
            self.ranks = ranks
            self.every_seconds = every_seconds
            self.keep = keep
            self.termination = termination
            self.saved = time.monotonic()

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.saved = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            due = time.monotonic() - self.saved >= self.every_seconds
            self.termination.asked, due = self._agree(self.termination.asked, due)
            if state.global_step < state.max_steps and (due or self.termination.asked):
                control.should_save = True
                control.should_log = True  # or the loss since the last report would be lost to the curve
            if self.termination.asked:
                control.should_training_stop = True

        def _agree(self, *wishes: bool) -> tuple[bool, ...]:
            """Several processes do what any of them wants: a step or a save is one of all."""
            accelerator = self.trainer.accelerator
            if accelerator.num_processes == 1:
                return wishes
            import torch

            counted = accelerator.reduce(torch.tensor([float(wish) for wish in wishes], device=accelerator.device))
            return tuple(bool(count > 0) for count in counted)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if self.selection.best:
                save_file(self.selection.best, folder / _best_file())
            self.trainer.accelerator.wait_for_everyone()
            self.saved = time.monotonic()
            if not self.trainer.is_world_process_zero():
                return
            for name in _SUPERFLUOUS:
                (folder / name).unlink(missing_ok=True)
            if self.ranks is not None:
                save_file({name: tensor.contiguous() for name, tensor in self.ranks.tensors().items()}, folder / _RANKS)
            for file in folder.iterdir():
                if file.is_file():
                    with open(file, "rb") as written:
                        os.fsync(written.fileno())
            if self.selection.stopped:
                return  # the stage is over: gone on from here, it would learn on
            write_json(folder / _MARK, asdict(self.selection.state_now()))
            whole = sorted(Path(args.output_dir).glob("checkpoint-*"), key=_step_of)
            for old in whole[: -self.keep]:
                (old / _MARK).unlink(missing_ok=True)  # first, or a kill meanwhile would leave a marked half
                shutil.rmtree(old)

    return CheckpointCallback


def restore_ranks(ranks: Any, checkpoint: Path) -> None:
    """Give AdaLoRA's allocation back what it knew at `checkpoint`."""
    ranks.restore(_read_tensors(checkpoint / _RANKS))


def fix_data_order(trainer: Any, seed: int) -> None:
    """Make the order of the training data a function of `seed` and epoch, whatever was drawn at random before.

    Batches of like lengths come in random order: transformers leaves them sorted from long to short several times an
    epoch, so that a mixture of long and short tasks would be learnt one after the other.
    """
    sampler_of = trainer._get_train_sampler

    def ordered(*arguments: Any, **more: Any) -> Any:
        sampler = sampler_of(*arguments, **more)
        return None if sampler is None else _epoch_sampler_class()(sampler, seed)

    trainer._get_train_sampler = ordered


@cache
def _epoch_sampler_class() -> type[Any]:
    import torch
    from torch.utils.data import Sampler
    from transformers.trainer_pt_utils import LengthGroupedSampler

    class EpochSampler(Sampler):
        def __init__(self, sampler: Any, seed: int) -> None:
            self.sampler = sampler
            self.seed = seed
            self.epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __len__(self) -> int:
            return len(self.sampler)

        def __iter__(self) -> Iterator[int]:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed + self.epoch)
                if getattr(self.sampler, "generator", None) is not None:
                    self.sampler.generator.manual_seed(self.seed + self.epoch)
                indices = list(self.sampler)
                if isinstance(self.sampler, LengthGroupedSampler):
                    indices = self.shuffled(indices, self.sampler.batch_size * process_count())
            return iter(indices)

        def shuffled(self, indices: list[int], batch: int) -> list[int]:
            """The batches in random order, but the longest first (what does not fit fails at once), a part last."""
            batches = [indices[start : start + batch] for start in range(0, len(indices), batch)]
            rest = [batches.pop()] if len(batches[-1]) < batch else []
            order = [0, *(1 + torch.randperm(len(batches) - 1)).tolist()] if batches else []
            return [index for place in order for index in batches[place]] + [index for part in rest for index in part]

    return EpochSampler
