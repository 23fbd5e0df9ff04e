"""Commands as processes that need not import for twenty seconds what a pipeline imports.

A process that has imported the libraries, and done nothing else, is forked for each command: what a command reads of
its environment, writes, and leaves in memory is its own, and its end is the interpreter's own.
"""

import gc
import importlib
import json
import os
import runpy
import site
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
    """Take commands (words, environment, folder, file for what is printed) line by line; answer each with its status.

    A command is `pocketloop`, or `python -m` and a module's name, and arguments.
    """
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
    os.setsid()
    printed = os.open(command["printed"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, standard in ((nothing, 0), (printed, 1), (printed, 2)):
        os.dup2(ours, standard)
    os.environ.clear()
    os.environ.update(command["environment"])
    os.chdir(command["folder"])
    sys.path[:1] = [found for found in os.environ.get("PYTHONPATH", "").split(os.pathsep) if found]
    site.execsitecustomize()
    program, *arguments = command["words"]
    if program == "python":
        _run_module(*arguments)
    else:
        from pocketloop.cli.main import main

        sys.argv = command["words"]
        main()


def _run_module(option: str, name: str, *arguments: str) -> None:
    assert option == "-m", "a module is to be run"
    sys.path.insert(0, os.getcwd())
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
