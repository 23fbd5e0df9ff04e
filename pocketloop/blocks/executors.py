"""datatrove's executors, made quiet and made to say what failed. Imported only when blocks run."""

import json
import multiprocessing
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NoReturn

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from pocketloop.contracts import errors
from pocketloop.contracts.collecting import ComputeConfig
from pocketloop.contracts.errors import ConfigError, PocketloopError

_TASK_MEMORY_GB = 1


def run_local(pipeline: list[PipelineStep], tasks: int, compute: ComputeConfig, work: Path) -> None:
    """Run tasks in this process, or in as many as `compute.workers` says."""
    _Local(pipeline, tasks, compute.workers, logging_dir=str(work)).run()


def run_on_ray(pipeline: list[PipelineStep], tasks: int, compute: ComputeConfig, work: Path) -> None:
    """Run tasks on the cluster that `compute.ray_address` names, or on one that is started here and stopped again."""
    with _cluster(compute):
        logger.disable("datatrove")
        executor = _Ray(
            pipeline,
            tasks=tasks,
            workers=compute.workers,
            logging_dir=str(work),
            mem_per_cpu_gb=_TASK_MEMORY_GB,
        )
        executor.run()
        undone = executor.get_incomplete_ranks(range(tasks))
        if undone:
            _raise_failure(work, undone[0], tasks)


class _Local(LocalPipelineExecutor):
    pipeline: list[PipelineStep]

    def run(self) -> None:
        """One worker needs no other process; several come from a pool that notices when one of them is killed."""
        ranks = self.get_incomplete_ranks(range(self.tasks))
        workers = min(self.workers, len(ranks))
        if workers <= 1:
            pipeline = self.pipeline
            for rank in ranks:
                self.pipeline = deepcopy(pipeline)
                self._run_for_rank(rank)
            return
        # Not fork: the parent may hold threads of torch or Ray.
        context = multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            try:
                for _ in pool.map(self._run_for_rank, ranks):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> None:
        logger.disable("datatrove")
        try:
            super()._run_for_rank(rank, local_rank, node_rank)
        except Exception as error:
            error.add_note(_where(rank, self.tasks))
            raise


class _Ray(RayPipelineExecutor):
    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        """Leave a failure where the driver finds it: datatrove's Ray executor only counts failed tasks."""
        logger.disable("datatrove")
        try:
            return super()._run_for_rank(rank, local_rank, node_rank)
        except Exception as error:
            failure = {"type": type(error).__name__, "says": str(error), "trace": traceback.format_exc()}
            with self.logging_dir.open(f"failures/{rank:05d}.json", "w") as file:
                json.dump(failure, file)
            raise


def _raise_failure(work: Path, rank: int, tasks: int) -> NoReturn:
    path = work / "failures" / f"{rank:05d}.json"
    if not path.is_file():
        raise RuntimeError(f"{_where(rank, tasks)}; its worker died, or the cluster had no room for it")
    failure = json.loads(path.read_text())
    path.unlink()
    expected = getattr(errors, failure["type"], None)
    if isinstance(expected, type) and issubclass(expected, PocketloopError):
        error: Exception = expected(failure["says"])
    else:
        error = RuntimeError(f"{failure['type']}: {failure['says']}\n{failure['trace']}")
    error.add_note(_where(rank, tasks))
    raise error


def _where(rank: int, tasks: int) -> str:
    return f"in task {rank + 1} of {tasks}"


@contextmanager
def _cluster(compute: ComputeConfig) -> Iterator[None]:
    try:
        import ray
    except ImportError:
        raise ConfigError("configs/compute.yaml: executor ray needs Ray: pip install 'pocketloop[ray]'") from None
    if ray.is_initialized():
        yield
        return
    here: dict[str, Any] = {"num_cpus": compute.workers, "include_dashboard": False}
    there = {"address": compute.ray_address} if compute.ray_address else here
    ray.init(log_to_driver=False, logging_level="ERROR", **there)
    try:
        yield
    finally:
        ray.shutdown()
