"""Predicted peaks of memory against those that the operating system measures, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tinymodels import save_tiny_model

HERE = Path(__file__).resolve().parent
_MEASURE = """
import json, sys, tempfile
from pathlib import Path
import trl, datasets
from trl import DPOTrainer, SFTTrainer
from pocketloop.contracts.devices import Device
from pocketloop.contracts.examples import IntentRow, PreferencePair, example_from_row
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.training import TrainConfig
from pocketloop.models.chat import load_tokenizer
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training import run
from pocketloop.training.budget import plan_training
from pocketloop.training.hardware import process_peak
from pocketloop.training.lengths import measure_lengths
from pocketloop.training.stage import Split, TrainingData

folder, training, again = sys.argv[1], TrainConfig.model_validate_json(sys.argv[2]), sys.argv[3] == "again"
run.computes_in_bfloat16 = lambda: False
run.choose_gradient_checkpointing = lambda *given: [again]
rows = [IntentRow(input=f"timer {n} " + "milk eggs " * 24, output="play jazz " * (8 + n % 2)) for n in range(8)]
examples = [example_from_row(row, source="test") for row in rows]
pairs = [
    PreferencePair(pair_id=str(n), task="intent", source="test", group=str(n), prompt=one.prompt, chosen=one.answer,
                   rejected=two.answer, reason="judge")
    for n, (one, two) in enumerate(zip(examples, examples[1:] + examples[:1], strict=True))
]
data, task = Split(examples, pairs), TaskSpec("intent", None)
base = BaseConfig(base="random", source=folder, architecture="llama")
lengths = measure_lengths(load_tokenizer(folder), task, data)
memory_gb = 0.5 if again else 100
device = Device(title="test", memory_gb=memory_gb, reserved_gb=0, tflops_fp32=1, bandwidth_gbs=1, gpu=False)
stage = plan_training(base, training, device, lengths).stages[0]
assert stage.checkpointing == again
before = process_peak()
with tempfile.TemporaryDirectory() as scratch:
    run.train_adapter(base, TrainingData(data), task, training, Path(scratch) / "adapter", Path(scratch) / "work")
print(json.dumps({"measured": process_peak() - before, "tensors": stage.memory.total, "peak": stage.peak}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    size: dict[str, Any] = {"intermediate_size": 2048, "vocab_size": 8192, "num_attention_heads": 8, "head_dim": 64}
    made = tmp_path_factory.mktemp("base") / "llama"
    return save_tiny_model(made, "llama", hidden=512, layers=8, num_key_value_heads=4, **size)


def measure(folder: Path, stage: dict[str, Any], again: bool = False, **environment: str) -> dict[str, float]:
    training = {"lora": {"r": 16, "dropout": 0.0}, "stages": [stage]}
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(folder), json.dumps(training), "again" if again else "kept"],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "again"),
    [
        ({"sft": {"epochs": 1, "batch_size": 8}}, False),
        ({"sft": {"epochs": 1, "batch_size": 8}}, True),
        ({"dpo": {"epochs": 1, "batch_size": 8}}, False),
    ],
    ids=["sft", "sft, computed again", "dpo"],
)
def test_a_stage_holds_what_was_predicted(folder: Path, stage: dict[str, Any], again: bool) -> None:
    # glibc gives every tensor back to the system at once, so that what is measured is what tensors hold
    found = measure(folder, stage, again, MALLOC_MMAP_THRESHOLD_="131072")
    assert 1 / 1.25 < found["measured"] / found["tensors"] < 1.25, found


@pytest.mark.slow
def test_with_what_the_allocator_holds_a_process_needs_what_was_predicted(folder: Path) -> None:
    found = measure(folder, {"sft": {"epochs": 1, "batch_size": 8}})
    assert 1 / 1.35 < found["measured"] / found["peak"] < 1.35, found
