"""Supervised fine-tuning of a LoRA adapter: trl's SFTTrainer over peft, with the loss on the answers alone."""

import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import atomic_dir
from pocketloop.contracts.recipe import BaseConfig, LoraConfig, SftConfig, TrainConfig
from pocketloop.contracts.reports import TrainReport
from pocketloop.models.bases import load_base
from pocketloop.models.llama_runtime import available_cores
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.progress import OnProgress, make_progress_callback, print_progress
from pocketloop.training.tokens import SequenceEncoder, TrainingSequence
from pocketloop.training.trainer import answer_trainer_class

_LOGGED_POINTS = 100
_EAGER_LENGTH = 1024
_WIDE = 512


def train_sft(
    config: BaseConfig,
    train: list[Example],
    validation: list[Example],
    task: TaskSpec,
    training: TrainConfig,
    out: Path,
    on_progress: OnProgress = print_progress,
    *,
    every_seconds: float = 5.0,
) -> TrainReport:
    """Train an adapter for `task` on `train` and write it to the folder `out`.

    The folder holds `adapter_model.safetensors` (float32) and `adapter_config.json`, which names the base and no path;
    equal input gives equal bytes on the same kind of machine with the same number of threads. Examples whose answer
    ends beyond `max_length` tokens are left out: `TrainReport.examples` counts those that were learnt from.
    `train_loss` is the mean over the last stretch of the curve, `tokens` what went through the model, padding aside.
    `on_progress` is called at most every `every_seconds` seconds.

    Raises:
        DataError: there is nothing to train on.
        ModelError: the base cannot be loaded, or the loss is no longer a number.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, set_seed

    sft = training.stages[0].sft
    with _quiet_libraries(), tempfile.TemporaryDirectory(prefix="pocketloop-sft-") as scratch:
        half = computes_in_bfloat16()
        model, tokenizer = load_base(config, "bfloat16" if half else "float32")
        use_cores(model.config.get_text_config().hidden_size)
        encoder = SequenceEncoder(tokenizer, task, sft.max_length)
        sequences = _encode(encoder, train)
        held_out = sorted(_encode(encoder, validation), key=lambda sequence: len(sequence.input_ids))
        if not sequences:
            raise DataError(
                f"none of the {len(train)} training examples ends within {sft.max_length} tokens; "
                "raise train.stages.0.sft.max_length, or see what the data stages left out"
            )
        _choose_attention(model, max(len(sequence.input_ids) for sequence in sequences))
        set_seed(training.seed)
        model = _with_lora(model, training.lora)
        trainer = answer_trainer_class()(
            model=model,
            args=_arguments(sft, training.seed, scratch, len(sequences), bool(held_out), half),
            train_dataset=Dataset.from_list([vars(sequence) for sequence in sequences]),
            eval_dataset=Dataset.from_list([vars(sequence) for sequence in held_out]) if held_out else None,
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(make_progress_callback(lambda: trainer.tokens_seen, on_progress, every_seconds))
        started = time.perf_counter()
        with _without_input_casts(model, active=half):
            trainer.train()
        seconds = time.perf_counter() - started
        _save(model, out, config.base)
    return _report(trainer, len(sequences), seconds)


def use_cores(hidden: int) -> None:
    """Let torch use every core this process may run on, unless OMP_NUM_THREADS says otherwise.

    One core for a narrow model: its matrices are done before a second thread has woken up (hidden 256: 4,600 tokens/s
    on one thread, 2,900 on two).
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1 if hidden < _WIDE else available_cores())


def computes_in_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 matrices in hardware: several times faster than float32."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _encode(encoder: SequenceEncoder, examples: list[Example]) -> list[TrainingSequence]:
    encoded = (encoder.encode(example) for example in examples)
    return [sequence for sequence in encoded if sequence is not None]


def _choose_attention(model: Any, longest: int) -> None:
    """On a CPU, torch's fused attention is slower backwards than plain matrix products until sequences get long."""
    import torch

    if not torch.cuda.is_available() and longest <= _EAGER_LENGTH:
        model.set_attn_implementation("eager")


def _with_lora(model: Any, lora: LoraConfig) -> Any:
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    return get_peft_model(
        model,
        PeftLora(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            task_type="CAUSAL_LM",
        ),
    )


def _arguments(sft: SftConfig, seed: int, scratch: str, examples: int, evaluate: bool, half: bool) -> Any:
    import torch
    from trl import SFTConfig

    steps = max(1, round(examples / sft.batch_size * sft.epochs))
    return SFTConfig(
        output_dir=scratch,
        num_train_epochs=sft.epochs,
        learning_rate=sft.learning_rate,
        weight_decay=sft.weight_decay,
        warmup_steps=min(sft.warmup, 0.99),  # below 1: a share of all steps
        per_device_train_batch_size=sft.batch_size,
        per_device_eval_batch_size=2 * sft.batch_size,
        train_sampling_strategy="group_by_length",
        dataset_kwargs={"skip_prepare_dataset": True},  # `SequenceEncoder` has prepared it
        loss_type="nll",  # `answer_trainer_class` computes it; this keeps trl from patching the model's forward
        max_length=None,
        prediction_loss_only=True,
        gradient_checkpointing=False,
        bf16=half,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch" if evaluate else "no",
        save_strategy="no",
        logging_steps=max(1, steps // _LOGGED_POINTS),
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        seed=seed,
        data_seed=seed,
    )


@contextmanager
def _without_input_casts(model: Any, active: bool) -> Iterator[None]:
    """Under autocast every product is bfloat16: peft's casts of its inputs to the adapter's float32 only cost time."""
    from peft.helpers import disable_input_dtype_casting

    with disable_input_dtype_casting(model, active=active):
        yield


def _save(model: Any, out: Path, base: str) -> None:
    with atomic_dir(out) as folder:
        model.save_pretrained(folder, safe_serialization=True)
        written = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        written["base_model_name_or_path"] = base
        # peft keeps the names in a set: its order changes from run to run, and with it the folder's digest.
        if isinstance(written["target_modules"], list):
            written["target_modules"].sort()
        for file in folder.iterdir():
            if file.name != "adapter_model.safetensors":
                file.unlink()
        text = json.dumps(written, indent=2, sort_keys=True) + "\n"
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")


def _report(trainer: Any, examples: int, seconds: float) -> TrainReport:
    history = trainer.state.log_history
    curve = [(int(entry["step"]), float(entry["loss"])) for entry in history if "loss" in entry]
    validation = [(int(entry["step"]), float(entry["eval_loss"])) for entry in history if "eval_loss" in entry]
    parameters = list(trainer.model.parameters())
    return TrainReport(
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        steps=trainer.state.global_step,
        examples=examples,
        tokens=trainer.tokens_seen,
        seconds=seconds,
        tokens_per_second=trainer.tokens_seen / seconds,
        train_loss=curve[-1][1],
        validation_loss=validation[-1][1] if validation else None,
        curve=curve,
        validation_curve=validation,
    )


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep the libraries' bars and notices off the terminal while training; what we say is in `on_progress`."""
    import datasets
    from transformers.utils import logging as transformers_logging

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled(), datasets.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # names that trl still gives to transformers
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars[0]:
            transformers_logging.enable_progress_bar()
        if bars[1]:
            datasets.enable_progress_bars()
