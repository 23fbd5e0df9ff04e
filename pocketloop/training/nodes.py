"""Training on several machines that share a home: the run offers its job, and each further machine joins it.

A step of a pipeline is one process on one machine. Where a recipe asks for more (`train.resources.nodes`), that process
leaves an offer in its job's folder, which lies on the volume that all share; machines on which `pocketloop train-node`
waits take it, one place each, and start their share of the processes. The meeting point is torch's own, which knows no
password: it belongs on a private network.
"""

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.files import write_json

JOIN_SECONDS = 240.0
"""How long a run waits for the machines that it asks for; torch itself would give up, without a word, after 300."""
_OFFER = "offer.json"
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Meeting:
    """Where the machines of one run meet, and how many they are."""

    address: str
    port: int
    nodes: int

    def arguments(self, number: int) -> list[str]:
        """`torch.distributed.run`'s, for machine `number` (from 0)."""
        return [
            *("--nnodes", str(self.nodes), "--node-rank", str(number)),
            *("--master-addr", self.address, "--master-port", str(self.port)),
        ]


def offer(job: Path, nodes: int) -> Meeting:
    """Leave in the job's folder where the others find this machine: POCKETLOOP_NODE_ADDRESS, or its host's address."""
    address = os.environ.get("POCKETLOOP_NODE_ADDRESS") or socket.gethostbyname(socket.gethostname())
    with socket.socket() as probe:
        probe.bind((address, 0))
        meeting = Meeting(address, probe.getsockname()[1], nodes)
    write_json(job / _OFFER, asdict(meeting))
    return meeting


@contextmanager
def waiting_for_others(job: Path, meeting: Meeting, started: "subprocess.Popen[str]") -> Iterator[None]:
    """End what was `started` when the machines that the job asks for have not come in time, and leave why."""
    from pocketloop.training.launch import write_error

    def give_up() -> None:
        came = 1 + len(list(job.glob("node-*")))
        if came < meeting.nodes:
            why = (
                f"train.resources.nodes {meeting.nodes}: {came} came within {JOIN_SECONDS / 60:.0f} minutes; run "
                "`pocketloop train-node` on the others, with POCKETLOOP_HOME on the volume that this machine uses"
            )
            write_error(job, ModelError(why))
            started.terminate()

    timer = threading.Timer(JOIN_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def find_place(training: Path) -> tuple[Path, Meeting, int] | None:
    """Take a free place in an open job under `training` (a home's folder): the job, its meeting, this machine's number.

    A job is open while the machine that offered it listens; what a killed run left behind is passed over.
    """
    for path in sorted(training.glob(f"*/.*.job/{_OFFER}")):
        try:
            meeting = Meeting(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue  # its run has just ended
        for number in range(1, meeting.nodes):
            if _listens(meeting) and _take(path.with_name(f"node-{number}")):
                return path.parent, meeting, number
    return None


def work_for_others(training: Path, once: bool, say: Callable[[str], None]) -> int:
    """Join one open job after another, until SIGTERM; with `once` only the first.

    Returns the exit status of the last job's processes here, 0 before the first.

    Raises:
        ConfigError: this machine has fewer GPUs than a job asks of it.
    """
    from pocketloop.training.launch import command, environment, read_training

    status, running, stopped = 0, None, threading.Event()

    def stop(number: int, frame: object) -> None:
        stopped.set()
        if running is not None:
            running.terminate()

    before = signal.signal(signal.SIGTERM, stop)
    say(f"waiting for training runs under {training}; Ctrl-C stops it")
    try:
        while not stopped.is_set():
            found = find_place(training)
            if found is None:
                stopped.wait(_POLL_SECONDS)
                continue
            job, meeting, number = found
            settings = read_training(job)
            place = f"machine {number + 1} of {meeting.nodes}"
            say(f"joining {job.parent.name} at {meeting.address}:{meeting.port} as {place}")
            running = subprocess.Popen(
                command(job, settings.resources, meeting.arguments(number)),
                env=environment(settings),
                stdin=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
            status = running.wait()
            say(f"done with {job.parent.name}: status {status}")
            if once:
                break
    finally:
        signal.signal(signal.SIGTERM, before)
    return status


def _listens(meeting: Meeting) -> bool:
    try:
        socket.create_connection((meeting.address, meeting.port), timeout=5).close()
    except OSError:
        return False
    return True


def _take(place: Path) -> bool:
    """Whether this machine was the first to take the place."""
    try:
        with open(place, "x", encoding="utf-8") as taken:
            taken.write(socket.gethostname())
    except OSError:
        return False
    return True
