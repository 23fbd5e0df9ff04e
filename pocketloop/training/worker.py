"""One of several training processes: `python -m pocketloop.training.worker JOB PARENT`, started by `launch.launch`."""

import os
import sys
import threading
import time
from pathlib import Path

from pocketloop.contracts.errors import PocketloopError
from pocketloop.contracts.files import write_json
from pocketloop.training.launch import progress_line, read_job, write_error
from pocketloop.training.processes import is_first, wait_for_all
from pocketloop.training.progress import Progress


def main(job: Path, parent: int) -> int:
    """Train as the folder `job` says, as long as process `parent` lives; the first process writes its report there.

    Returns the exit status.
    """
    import torch
    from accelerate import PartialState

    from pocketloop.training.run import train_adapter

    arguments = read_job(job)
    _end_with(parent)
    PartialState(cpu=not torch.cuda.is_available())
    try:
        report = train_adapter(**arguments, on_progress=_say)
    except PocketloopError as error:
        write_error(job, error)
        return error.exit_code
    if is_first():
        write_json(job / "report.json", report)
    wait_for_all()
    torch.distributed.destroy_process_group()
    return 0


def _say(progress: Progress) -> None:
    if is_first():
        print(progress_line(progress), flush=True)


def _end_with(parent: int) -> None:
    """End this process when the one that launched it is gone: a killed run must not go on beside the next one."""

    def watch() -> None:
        while True:
            time.sleep(1)
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
