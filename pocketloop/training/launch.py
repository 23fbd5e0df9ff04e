"""Training with several processes: a job folder, one launcher on each machine, one report.

The job is JSON and JSON lines in a folder that only this user may read. `torch.distributed.run` starts
`pocketloop.training.worker` in each process: it is what `accelerate launch` runs for GPUs, and it joins processors by
gloo, for which `accelerate launch` would want MPI. accelerate finds its settings in the environment. The first
process's progress comes back as lines; the first that fails ends all, and what it said is the error here.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from pocketloop.contracts import errors
from pocketloop.contracts.errors import ConfigError, ModelError, PocketloopError
from pocketloop.contracts.files import write_json, write_jsonl
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.reports import TrainReport
from pocketloop.contracts.training import GroupConfig, Resources, TrainConfig
from pocketloop.models.llama_runtime import available_cores
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.nodes import offer, waiting_for_others
from pocketloop.training.processes import rows_per_process
from pocketloop.training.progress import OnProgress, Progress
from pocketloop.training.stage import Split, TrainingData

PROGRESS = "@progress "
"""Begins a line in which the first process says where it stands."""
_LAST_LINES = 30
Row = TypeVar("Row", bound=BaseModel)
_KINDS = ("examples", "pairs", "rated")


def launch(
    base: BaseConfig,
    data: TrainingData,
    task: TaskSpec,
    training: TrainConfig,
    out: Path,
    work: Path,
    on_progress: OnProgress,
    *,
    start: Path | None = None,
    every_seconds: float = 5.0,
) -> TrainReport:
    """`train_adapter` in `training.resources.processes` processes; arguments and result as there.

    SIGTERM is passed on, so that the processes save where they stand. Where they run on several machines, `work` lies
    on a volume that all of them share, and the base is found at the same place on each.

    Raises:
        ConfigError: the recipe asks for what cannot be done in several processes.
        PocketloopError: what the process that failed first raised.
    """
    check_resources(training)
    work.parent.mkdir(parents=True, exist_ok=True)
    job = Path(tempfile.mkdtemp(prefix=f".{work.name}.", suffix=".job", dir=work.parent))
    try:
        _write_job(job, base, data, task, training, out, work, start, every_seconds)
        last = _run(job, training, on_progress)
        report = job / "report.json"
        if not report.is_file():
            raise _error_of(job, last)
        return TrainReport.model_validate_json(report.read_text(encoding="utf-8"))
    finally:
        shutil.rmtree(job, ignore_errors=True)


def check_resources(training: TrainConfig) -> None:
    """Refuse, before anything starts, what several processes cannot do.

    Raises:
        ConfigError: a batch that cannot be divided, a stage or a judge that lives in one process, an adapter that
            cannot be sharded.
    """
    resources = training.resources
    for number, stage in enumerate(training.stages):
        rows_per_process(f"train.stages.{number}.{stage.name}", stage.config.batch_size, resources.processes)
        if isinstance(stage.config, GroupConfig) and stage.config.reward == "judge":
            raise ConfigError(
                f"train.stages.{number}.{stage.name}.reward judge: one process asks the judge; "
                f"set train.resources.processes to 1 (now {resources.processes})"
            )
        if stage.name == "ppo":
            raise ConfigError(
                f"train.stages.{number}.ppo runs in one process; set train.resources.processes to 1 "
                f"(now {resources.processes})"
            )
        if resources.strategy == "fsdp" and stage.name != "sft":
            raise ConfigError(
                f"train.stages.{number}.{stage.name}: only sft is trained over a sharded base; "
                "set train.resources.strategy to ddp"
            )
    if resources.strategy == "fsdp" and training.lora.method in ("qlora", "adalora"):
        raise ConfigError(
            f"train.lora.method {training.lora.method} cannot be sharded (train.resources.strategy fsdp): "
            "4-bit weights and AdaLoRA's ranks belong to whole matrices; use ddp, or method lora"
        )


def read_job(job: Path) -> dict[str, Any]:
    """`train_adapter`'s arguments, from the folder that `launch` wrote."""
    from pocketloop.contracts.examples import Example, PreferencePair, RatedAnswer
    from pocketloop.contracts.recipe import Catalogue

    spec = json.loads((job / "job.json").read_text(encoding="utf-8"))

    def split(name: str) -> Split:
        return Split(
            list(_read(job / f"{name}.examples.jsonl", Example)),
            list(_read(job / f"{name}.pairs.jsonl", PreferencePair)),
            list(_read(job / f"{name}.rated.jsonl", RatedAnswer)),
        )

    described = spec["task"]
    catalogue = described.pop("catalogue")
    return {
        "base": BaseConfig.model_validate(spec["base"]),
        "data": TrainingData(split("train"), split("validation")),
        "task": TaskSpec(**described, catalogue=None if catalogue is None else Catalogue.model_validate(catalogue)),
        "training": TrainConfig.model_validate(spec["training"]),
        "out": Path(spec["out"]),
        "work": Path(spec["work"]),
        "start": Path(spec["start"]) if spec["start"] else None,
        "every_seconds": spec["every_seconds"],
    }


def read_training(job: Path) -> TrainConfig:
    """How the job trains."""
    return TrainConfig.model_validate(json.loads((job / "job.json").read_text(encoding="utf-8"))["training"])


def _read(path: Path, model: type[Row]) -> Iterator[Row]:
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield model.model_validate_json(line)


def _write_job(
    job: Path,
    base: BaseConfig,
    data: TrainingData,
    task: TaskSpec,
    training: TrainConfig,
    out: Path,
    work: Path,
    start: Path | None,
    every_seconds: float,
) -> None:
    described = {**vars(task), "catalogue": task.catalogue.model_dump(mode="json") if task.catalogue else None}
    for name, split in (("train", data.train), ("validation", data.validation)):
        for kind in _KINDS:
            write_jsonl(job / f"{name}.{kind}.jsonl", getattr(split, kind))
    if start:
        shutil.copytree(start, job / "start")  # another machine may not see where it lies
    write_json(
        job / "job.json",
        {
            "base": base.model_dump(mode="json"),
            "task": described,
            "training": training.model_dump(mode="json"),
            "out": str(out.resolve()),
            "work": str(work.resolve()),
            "start": str(job / "start") if start else "",
            "every_seconds": every_seconds,
        },
    )


def command(job: Path, resources: Resources, place: list[str]) -> list[str]:
    """What starts this machine's share of the processes; `place` says where the machines meet. They end with us."""
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *(*place, "--nproc-per-node", str(resources.processes_per_node), "--max-restarts", "0"),
        *("-m", "pocketloop.training.worker", str(job), str(os.getpid())),
    ]


def environment(training: TrainConfig) -> dict[str, str]:
    """The processes' environment: accelerate's settings, and a fair share of the cores each."""
    import torch

    gpu = torch.cuda.is_available()
    processes = training.resources.processes_per_node
    if gpu and torch.cuda.device_count() < processes:
        raise ConfigError(
            f"train.resources.processes {training.resources.processes}: this machine has {torch.cuda.device_count()} "
            f"GPU(s) for {processes}"
        )
    cores = max(1, available_cores() // processes)
    found = {"OMP_NUM_THREADS": str(cores), **os.environ, "ACCELERATE_USE_CPU": str(not gpu).lower()}
    if training.resources.strategy == "fsdp":
        if not gpu:
            raise ConfigError("train.resources.strategy fsdp: accelerate shards over GPUs alone; take ddp here")
        found |= {
            "ACCELERATE_USE_FSDP": "true",
            "FSDP_VERSION": "2",
            "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
            "FSDP_RESHARD_AFTER_FORWARD": "true",
            "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
            "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        }
    return found


def _run(job: Path, training: TrainConfig, on_progress: OnProgress) -> list[str]:
    """Run the processes to their end; returns the last lines of what they said."""
    last: deque[str] = deque(maxlen=_LAST_LINES)
    resources, settings = training.resources, environment(training)
    meeting = offer(job, resources.nodes) if resources.nodes > 1 else None
    if meeting:
        note = (
            f"waiting for {resources.nodes - 1} more machine(s): `pocketloop train-node` there, on this home's volume"
        )
        on_progress(Progress(0, 0, 0.0, 0, 0.0, note=note))
    with subprocess.Popen(
        command(job, resources, meeting.arguments(0) if meeting else ["--standalone"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=settings,
        start_new_session=True,  # a signal to our group must not reach the processes twice
    ) as started:
        try:
            others = waiting_for_others(job, meeting, started) if meeting else nullcontext()
            with _passing_on_sigterm(started), others:
                for progress in _progress(started.stdout or (), last):
                    on_progress(progress)
                started.wait()
        finally:
            if started.poll() is None:
                started.terminate()
    return list(last)


def _progress(lines: Iterable[str], last: deque[str]) -> Iterator[Progress]:
    for line in lines:
        if line.startswith(PROGRESS):
            yield Progress(**json.loads(line.removeprefix(PROGRESS)))
        elif line.strip():
            last.append(line.rstrip())


def progress_line(progress: Progress) -> str:
    """A line that `launch` reads back."""
    return PROGRESS + json.dumps(asdict(progress))


@contextmanager
def _passing_on_sigterm(started: "subprocess.Popen[str]") -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: started.terminate())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def write_error(job: Path, error: PocketloopError) -> None:
    """Leave what this process raised for `launch` to raise."""
    number = os.environ.get("RANK", "0")
    write_json(job / f"error-{number}.json", {"kind": type(error).__name__, "message": str(error)})


def _error_of(job: Path, last: list[str]) -> PocketloopError:
    """What the first process to fail raised; without its word, the last lines of what all said."""
    said = sorted(job.glob("error-*.json"), key=lambda file: file.stat().st_mtime_ns)
    if said:
        found = json.loads(said[0].read_text(encoding="utf-8"))
        kind = getattr(errors, found["kind"], ModelError)
        return kind(found["message"]) if issubclass(kind, PocketloopError) else ModelError(found["message"])
    lines = "\n  ".join(last) or "they said nothing"
    return ModelError(f"a training process ended before its time; the last lines of all:\n  {lines}")
