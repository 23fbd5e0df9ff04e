"""`pocketloop` commands as processes that need not import for twenty seconds what a pipeline imports.

A process that has imported the libraries, and done nothing else, is forked for each command: what a command reads of
its environment, writes, and leaves in memory is its own, and its end is the interpreter's own.
"""

import gc
import importlib
import json
import os
import sys
from typing import Any

IMPORTED = [
    "pocketloop.cli.main",
    "pipelines.retrain",
    "pipelines.promote",
    "pipelines.watch",
    "zenml.zen_stores.sql_zen_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "transformers.trainer",
    "trl.trainer.sft_trainer",
    "great_expectations",
    "evidently",
    "presidio_analyzer",
]


def main() -> None:
    """Take commands (arguments, environment, file for what is printed) line by line; answer each with its status."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else each child's collector walks, and copies, all that was imported: five seconds at its end
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.close()
            _become(command)
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _become(command: dict[str, Any]) -> None:
    from pocketloop.cli.main import main

    os.setsid()
    printed = os.open(command["printed"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, standard in ((nothing, 0), (printed, 1), (printed, 2)):
        os.dup2(ours, standard)
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.argv = ["pocketloop", *command["arguments"]]
    main()


if __name__ == "__main__":
    main()
