"""Runs compiled IR as Kubeflow would, but each container's command is a process of this machine.

The first container of each image is the command itself. Later ones are forked from a process that has imported the
libraries (`warm_commands.py`) and run the same module with the same arguments.

A process gets what the IR gives its container: the environment, Kubernetes Secrets, the pod's fields, and the volume at
the path where it is mounted. Of an image it gets, from here:

- `PATH` with this interpreter's `python`, and the checkout on `PYTHONPATH`, which the images hold in /app;
- a HOME, a TMPDIR and a working folder that are empty at its start; what ZenML does to /app is led to the last of them;
- OMP_NUM_THREADS, which stands for the pod's limit of processors.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from command_line import forked

Run = Callable[[list[str], dict[str, str], Path], tuple[int, str]]
"""Runs words with an environment in a folder: the exit status, and what was printed."""

AT_ONCE = 2
"""Containers that run at the same time, of which one may be forked."""

CHECKOUT = Path(__file__).resolve().parents[1]

_SITE = """
import os
_makedirs, _chdir = os.makedirs, os.chdir
os.makedirs = lambda name, *a, **k: _makedirs(os.environ["APP"] if name == "/app" else name, *a, **k)
os.chdir = lambda path: _chdir(os.environ["APP"] if path == "/app" else path)
"""


@dataclass
class Ended:
    """How a task ended: each attempt's exit status, and what it printed."""

    statuses: list[int] = field(default_factory=list)
    printed: str = ""

    @property
    def succeeded(self) -> bool:
        return self.statuses[-1:] == [0]


class Cluster:
    """Kubernetes Secrets (name → key → value), and the folders in which pods live."""

    def __init__(self, folder: Path, secrets: dict[str, dict[str, str]]) -> None:
        self.folder, self.secrets = folder, secrets

    def run(self, ir: Path, run_id: str) -> dict[str, Ended]:
        """Run the IR; a task starts when all that it depends on have succeeded, and is retried as the IR says."""
        spec, platform = yaml.safe_load_all(ir.read_text(encoding="utf-8"))
        tasks, ended, running = spec["root"]["dag"]["tasks"], dict[str, Ended](), dict[Future[Ended], str]()
        seen = set[str]()
        with ThreadPoolExecutor(AT_ONCE) as nodes:
            while True:
                for name in [n for n, task in tasks.items() if _ready(task, ended)]:
                    if name not in ended and name not in running.values():
                        executor = spec["components"][tasks[name]["componentRef"]["name"]]["executorLabel"]
                        container = spec["deploymentSpec"]["executors"][executor]["container"]
                        pod = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][executor]
                        environment = self._environment(container, pod, run_id)
                        run = forked if container["image"] in seen else _started
                        seen.add(container["image"])
                        running[nodes.submit(self._attempts, tasks[name], container, environment, run)] = name
                if not running:
                    return ended
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    ended[running.pop(future)] = future.result()

    def _attempts(
        self, task: dict[str, Any], container: dict[str, Any], environment: dict[str, str], run: Run
    ) -> Ended:
        ended, name = Ended(), task["taskInfo"]["name"]
        for attempt in range(1 + int(task.get("retryPolicy", {}).get("maxRetryCount", 0))):
            pod = self.folder / f"{name}-{attempt}"
            for part in ("app", "home", "tmp", "site"):
                (pod / part).mkdir(parents=True)
            (pod / "site" / "sitecustomize.py").write_text(_SITE, encoding="utf-8")
            started = time.perf_counter()
            words = [*container["command"], *container["args"]]
            status, printed = run(words, {**_image(pod), **environment}, pod / "app")
            print(f"  {name}: exit status {status}, {time.perf_counter() - started:.0f} s", flush=True)
            ended.statuses.append(status)
            ended.printed += printed
            if status:
                print(printed[-4000:], flush=True)
            if status == 0:
                break
        return ended

    def _environment(self, container: dict[str, Any], pod: dict[str, Any], run_id: str) -> dict[str, str]:
        found = {variable["name"]: str(variable["value"]) for variable in container.get("env", [])}
        for secret in pod.get("secretAsEnv", []):
            for key in secret["keyToEnv"]:
                found[key["envVar"]] = self.secrets[secret["secretName"]][key["secretKey"]]
        for named in pod.get("fieldPathAsEnv", []):
            assert named["fieldPath"] == "metadata.labels['pipeline/runid']"
            found[named["name"]] = run_id
        for mounted in pod.get("pvcMount", []):
            assert Path(mounted["mountPath"]).is_dir(), "the volume is this folder"
        return found


def _started(words: list[str], environment: dict[str, str], folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        words, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def _ready(task: dict[str, Any], ended: dict[str, Ended]) -> bool:
    return all(name in ended and ended[name].succeeded for name in task.get("dependentTasks", []))


def _image(pod: Path) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin:/bin",
        "PYTHONPATH": f"{pod / 'site'}{os.pathsep}{CHECKOUT}",
        "APP": str(pod / "app"),
        "HOME": str(pod / "home"),
        "TMPDIR": str(pod / "tmp"),
        "OMP_NUM_THREADS": "1",
    }
