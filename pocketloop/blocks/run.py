"""One way to run blocks: a pipeline of datatrove steps over numbered tasks, here or on a Ray cluster.

A block is a `datatrove.pipeline.base.PipelineStep`. Task `rank` of `world_size` works on the part of the input that
the first block gives it, and must write nothing that depends on how many tasks there are or on who ran them.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pocketloop.contracts.collecting import ComputeConfig

if TYPE_CHECKING:
    from datatrove.pipeline.base import PipelineStep


def run_blocks(pipeline: "list[PipelineStep]", tasks: int, compute: ComputeConfig, work: Path) -> None:
    """Run `pipeline` once for each of `tasks` ranks; returns when all of them are done.

    Blocks must pickle, unless `compute` says one local worker: then they run in this process, one task after the
    other. They are given all they need: another process may see an older environment. On a cluster `work`, and every
    folder that blocks read or write, must be storage that all nodes share.

    Args:
        pipeline: the blocks, a reader first. Each task is given its own copies.
        tasks: parts that the input is cut into; 0 does nothing.
        compute: the executor, and how many tasks run at once.
        work: notes which tasks are done. A run that was killed goes on where it was when it is given the same folder
            again, so the folder must be named after what is worked on.

    Raises:
        ConfigError: the executor is `ray` and Ray is not installed.
        Exception: a task failed: the block's own exception, with a note that names the task. Other tasks may be done.
    """
    if tasks == 0:
        return
    from pocketloop.blocks.executors import run_local, run_on_ray

    run = run_on_ray if compute.executor == "ray" else run_local
    run(pipeline, tasks, compute, work.resolve())
