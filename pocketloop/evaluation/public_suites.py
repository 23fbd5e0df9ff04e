"""Public suites through lm-eval, from task files on disk: nothing is fetched.

A suite is a task file of lm-eval (`configs/suites/NAME.yaml`, or any path) whose `dataset_path` is `json` and whose
data files lie beside it. A task file that would run code of its own is refused: it is data here.
"""

import json
import math
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from pocketloop.contracts.errors import ConfigError, ModelError
from pocketloop.contracts.home import project_root
from pocketloop.contracts.reports import Estimate
from pocketloop.evaluation.statistics import estimate
from pocketloop.models.lm_eval_env import LmEvalEnvironment, lm_eval_environment

_LOCAL = ("json", "csv", "parquet", "text")


class SuiteResult(BaseModel):
    """What one model reached on one suite: each metric of the task file with a 95 % interval over the items."""

    model_config = ConfigDict(extra="forbid")

    suite: str
    model: str
    n: int
    metrics: dict[str, Estimate]
    samples: str
    """The file with lm-eval's own record of every item."""


def suite_file(name: str) -> Path:
    """The task file called `name` (`configs/suites/NAME.yaml`), or the one at a path.

    Raises:
        ConfigError: there is none.
    """
    folder = project_root() / "configs" / "suites"
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if path.is_file():
        return path.resolve()
    known = sorted(found.stem for found in folder.glob("*.yaml"))
    near = get_close_matches(name, known, 1)
    raise ConfigError(
        f"unknown suite {name!r}: {f'did you mean {near[0]!r}?' if near else 'known: ' + ', '.join(known)}"
    )


def run_suite(
    suite: Path,
    weights: Path,
    out: Path,
    *,
    adapter: Path | None = None,
    limit: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    batch_size: int = 16,
    chat_template: bool = False,
    device: str = "cpu",
    environment: LmEvalEnvironment | None = None,
) -> SuiteResult:
    """Run a base on disk, with a peft adapter if one is given, on one task file in lm-eval's own environment.

    Args:
        suite: the task file.
        weights: folder with the base, as transformers reads it.
        out: folder for lm-eval's results, its record of every item, and its log.
        adapter: folder with a peft adapter.
        limit: ask the first items only.
        dtype: of the weights.
        batch_size: items asked at once.
        chat_template: show each item as a user's turn.
        device: as torch names it.
        environment: lm-eval's; by default the home's, made if need be.

    Raises:
        ConfigError: the task file is no task file of data on disk; says which key.
        ModelError: lm-eval could not be installed, or failed; the message has the end of its log.
    """
    name, task = _local_task(suite)
    if not (weights / "config.json").is_file():
        raise ModelError(f"{weights} holds no base that transformers reads (no config.json)")
    tasks = out / "tasks"
    tasks.mkdir(parents=True, exist_ok=True)
    (tasks / f"{name}.yaml").write_text(yaml.safe_dump(task, allow_unicode=True), encoding="utf-8")
    for old in [*out.rglob("results_*.json"), *out.rglob("samples_*.jsonl")]:
        old.unlink()
    model = f"pretrained={weights},dtype={dtype}" + (f",peft={adapter}" if adapter else "")
    asked = ["run", "--model", "hf", "--model_args", model, "--tasks", name, "--include_path", str(tasks)]
    asked += ["--device", device, "--batch_size", str(batch_size), "--output_path", str(out), "--log_samples"]
    asked += ["--limit", str(limit)] if limit else []
    asked += ["--apply_chat_template"] if chat_template else []
    (environment or lm_eval_environment()).run(asked, out / "lm-eval.log")
    return _read(out, name, weights.name + (f" with {adapter.name}" if adapter else ""))


def _local_task(path: Path) -> tuple[str, dict[str, Any]]:
    """A task file's name and content, its data files as absolute paths."""
    try:
        task = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        code = "!function" in str(error)
        why = "it runs code of its own (`!function`), and only data is taken here" if code else "not valid YAML"
        raise ConfigError(f"{where}: {why}") from None
    if not isinstance(task, dict) or not isinstance(task.get("task"), str):
        raise ConfigError(f"{path}: key `task` is missing: the name of the suite, for lm-eval one task")
    if task.get("dataset_path") not in _LOCAL:
        given = task.get("dataset_path")
        raise ConfigError(
            f"{path}: `dataset_path` is {given!r}; a suite on disk has one of {', '.join(_LOCAL)}, with "
            "`dataset_kwargs.data_files` beside it"
        )
    files = (task.get("dataset_kwargs") or {}).get("data_files")
    if not isinstance(files, Mapping) or not files:
        raise ConfigError(f"{path}: `dataset_kwargs.data_files` is missing: a file for each split")
    found = {}
    for split, given in files.items():
        target = path.parent / str(given)
        if not target.is_file():
            raise ConfigError(f"{path}: `dataset_kwargs.data_files.{split}`: {target} does not exist")
        found[split] = str(target.resolve())
    return task["task"], {**task, "dataset_kwargs": {**task["dataset_kwargs"], "data_files": found}}


def _read(out: Path, name: str, model: str) -> SuiteResult:
    """The metrics over the items that lm-eval wrote down, each a number between 0 and 1."""
    samples = next(iter(sorted(out.rglob(f"samples_{name}_*.jsonl"))), None)
    if samples is None:
        raise ModelError(f"lm-eval wrote no items of {name}; its log is {out / 'lm-eval.log'}")
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    values: dict[str, list[float]] = {}
    for row in rows:
        for metric in row.get("metrics", []):
            if isinstance(row.get(metric), int | float) and math.isfinite(row[metric]):
                values.setdefault(metric, []).append(float(row[metric]))
    metrics = {metric: estimate(found) for metric, found in values.items() if all(0 <= one <= 1 for one in found)}
    if not metrics:
        raise ModelError(f"none of the metrics of {name} has a value between 0 and 1 for each item")
    return SuiteResult(suite=name, model=model, n=len(rows), metrics=metrics, samples=str(samples))
