"""What signed delivery costs beside a plain HTTP download of the same file from the same server.

Cold and warm sync of one device; a whole fleet that installs, syncs without news, and is taken back from a canary; and
publishing as past versions accumulate. Server and devices are processes of this machine. Best or median of several
rounds; the ratios are the figures that carry over to another machine. Exits with 1 if any sync failed.
"""

import argparse
import hashlib
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import requests

from pocketloop.contracts.delivery import AdapterFacts, ChannelPolicy, Companion, Probe
from pocketloop.contracts.home import Home
from pocketloop.contracts.rollout import DeliveryConfig
from pocketloop.delivery.repository import Repository
from pocketloop.device.sync import DeviceConfig, sync

BASE = "b" * 64
WORKERS, THREADS = 2, 4
FLEET_FILE = 1 << 14
_COMPANION = Companion(
    adapter="functions",
    task="function_call",
    probes=[Probe(prompt="Hello!", prompt_ids=[1] * 20, answer_ids=[2] * 16)] * 8,
)


class Publisher:
    """A repository in a folder of its own, with one channel."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.repository = Repository.create(DeliveryConfig(), self.home)
        self.generation = 0

    def release(self, content: bytes) -> str:
        """Approve an adapter file; gives its digest."""
        path = self.home.root / "adapter.gguf"
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        facts = AdapterFacts(
            adapter="functions", version="1", released="1", bundle_digest=digest, base_digest=BASE, task="function_call"
        )
        self.repository.propose_adapter(path, _COMPANION, facts)
        self.repository.sign()
        self.repository.publish()
        return digest

    def serve(self, stable: str, canary: str | None = None, ppm: int = 0) -> None:
        """Set the channel's policy."""
        self.generation += 1
        policy = ChannelPolicy(
            adapter="functions",
            base_digest=BASE,
            generation=self.generation,
            stable=stable,
            canary=canary,
            canary_ppm=ppm,
            salt="rollout",
            updated=datetime.now(UTC),
        )
        self.repository.set_policy(policy)

    def file_path(self, digest: str) -> str:
        """Where a plain client would fetch the file."""
        return f"targets/stable/functions/{digest}.{digest}.gguf"


def content(size: int, seed: int) -> bytes:
    """Bytes that nobody can compress."""
    import random

    return b"GGUF" + random.Random(seed).randbytes(size - 4)


def _serve(folder: Path, pipe: Connection) -> None:
    from pocketloop.services.cdn import create_app
    from pocketloop.services.running import running

    with running(create_app(folder)) as address:
        pipe.send(address)
        pipe.recv()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The repository behind the development CDN, in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(folder, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("stop")
        process.join(10)


def milliseconds(work: Callable[[], Any], rounds: int) -> float:
    """Best of several rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best * 1000


def plain(url: str, out: Path) -> int:
    """Download a file as a client without signatures would; gives the bytes."""
    with requests.Session() as session, session.get(url, stream=True, timeout=60) as answer, open(out, "wb") as file:
        answer.raise_for_status()
        return sum(file.write(piece) for piece in answer.iter_content(1 << 16))


def one_device(folder: Path, megabytes: float, rounds: int) -> dict[str, Any]:
    """Cold and warm sync beside a plain download."""
    publisher = Publisher(folder / "one")
    digest = publisher.release(content(int(megabytes * 1e6), 1))
    publisher.serve(digest)
    root = publisher.repository.root_bytes()
    number = iter(range(10**6))

    with served(publisher.home.cdn) as address:

        def device(name: str) -> DeviceConfig:
            return DeviceConfig(folder / name, address, name, BASE, root, reserve=0)

        url = f"{address}/{publisher.file_path(digest)}"
        size = plain(url, folder / "plain")
        cold = sync(device("counted"), "functions")
        warm = sync(device("counted"), "functions")
        times = {"plain": float("inf"), "cold": float("inf"), "warm": float("inf")}
        for _ in range(rounds):  # in turns, so that a busy moment hits all three
            times["plain"] = min(times["plain"], milliseconds(lambda: plain(url, folder / "plain"), 1))
            times["cold"] = min(
                times["cold"], milliseconds(lambda: sync(device(f"cold-{next(number)}"), "functions"), 1)
            )
            times["warm"] = min(times["warm"], milliseconds(lambda: sync(device("counted"), "functions"), 1))
    return {
        "megabytes": size / 1e6,
        "plain": {"requests": 1, "bytes": size, "ms": times["plain"]},
        "cold": {"requests": cold.requests, "bytes": cold.bytes, "ms": times["cold"]},
        "warm": {"requests": warm.requests, "bytes": warm.bytes, "ms": times["warm"]},
    }


def _sync_some(folder: Path, address: str, root: bytes, numbers: range) -> list[str]:
    def one(number: int) -> str:
        device = DeviceConfig(folder / str(number), address, f"device-{number}", BASE, root, reserve=0)
        try:
            done = sync(device, "functions")
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return f"{done.action} {done.installed}"

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, numbers))


def _plain_some(folder: Path, url: str, _: bytes, numbers: range) -> list[str]:
    def one(number: int) -> str:
        out = folder / f"plain-{number % (THREADS * 4)}-{numbers.start}"
        return f"plain {plain(url, out)}"

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, numbers))


def fleet(folder: Path, devices: int) -> dict[str, Any]:
    """Everybody installs, syncs again, takes a canary, and is taken back."""
    publisher = Publisher(folder / "fleet")
    old, new = (publisher.release(content(FLEET_FILE, seed)) for seed in (2, 3))
    root = publisher.repository.root_bytes()
    phones = folder / "phones"
    phones.mkdir()
    chunk = max(1, min(250, devices // (WORKERS * 2)))
    chunks = [range(start, min(start + chunk, devices)) for start in range(0, devices, chunk)]
    found: dict[str, Any] = {"devices": devices, "errors": []}
    with (
        served(publisher.home.cdn) as address,
        ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):

        def everybody(name: str, work: Callable[..., list[str]], at: str, expected: str) -> None:
            start = time.perf_counter()
            jobs = [pool.submit(work, phones, at, root, numbers) for numbers in chunks]
            outcomes = [outcome for job in jobs for outcome in job.result()]
            found[name] = {"seconds": time.perf_counter() - start}
            found["errors"] += [f"{name}: {outcome}" for outcome in outcomes if outcome != expected]

        list(pool.map(len, [range(1)] * WORKERS))  # start the workers before the clock
        everybody("plain", _plain_some, f"{address}/{publisher.file_path(old)}", f"plain {FLEET_FILE}")
        publisher.serve(old)
        everybody("cold", _sync_some, address, f"installed {old}")
        everybody("warm", _sync_some, address, f"unchanged {old}")
        publisher.serve(old, new, 1_000_000)
        everybody("update", _sync_some, address, f"installed {new}")
        publisher.serve(old)
        everybody("revert", _sync_some, address, f"reverted {old}")
    return found


def publishing(folder: Path, versions: int) -> dict[str, Any]:
    """Seconds that one release and one policy take, at the beginning and with all past versions approved."""
    publisher = Publisher(folder / "publishing")
    root = publisher.repository.root_bytes()
    release: list[float] = []
    policy: list[float] = []
    for number in range(versions):
        data = content(4096, 1000 + number)
        start = time.perf_counter()
        digest = publisher.release(data)
        middle = time.perf_counter()
        publisher.serve(digest)
        release.append(middle - start)
        policy.append(time.perf_counter() - middle)
    device = DeviceConfig(folder / "late", str(publisher.home.cdn), "late", BASE, root, reserve=0)
    cold = sync(device, "functions")
    window = max(1, min(10, versions // 2))
    return {
        "versions": versions,
        "release_ms": {"first": 1000 * median(release[:window]), "last": 1000 * median(release[-window:])},
        "policy_ms": {"first": 1000 * median(policy[:window]), "last": 1000 * median(policy[-window:])},
        "cold_bytes": cold.bytes,
        "warm_ms": milliseconds(lambda: sync(device, "functions"), 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=1000)
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pocketloop-delivery-") as name:
        folder = Path(name)
        one = one_device(folder, options.megabytes, options.rounds)
        many = fleet(folder, options.devices)
        past = publishing(folder, options.versions)
    if options.json:
        print(json.dumps({"one": one, "fleet": many, "publishing": past}))
    else:
        _print(one, many, past)
    for error in many["errors"][:10]:
        print(error, file=sys.stderr)
    sys.exit(1 if many["errors"] else 0)


def _print(one: dict[str, Any], many: dict[str, Any], past: dict[str, Any]) -> None:
    print(f"one device, a file of {one['megabytes']:.1f} MB")
    for kind in ("plain", "cold", "warm"):
        row, base = one[kind], one["plain"]
        print(
            f"  {kind:6} {row['requests']:3} requests {row['bytes']:12,} bytes {row['ms']:8.1f} ms   "
            f"{row['bytes'] / base['bytes']:7.4f} x bytes, {row['ms'] / base['ms']:5.2f} x time of a plain download"
        )
    print(f"{many['devices']:,} devices, files of {FLEET_FILE >> 10} KiB, {len(many['errors'])} errors")
    for kind in ("plain", "cold", "warm", "update", "revert"):
        seconds = many[kind]["seconds"]
        print(
            f"  {kind:6} {seconds:7.1f} s {many['devices'] / seconds:8.0f} devices a second   "
            f"{seconds / many['plain']['seconds']:5.2f} x plain downloads"
        )
    print(f"publishing, with {past['versions']:,} past versions beside the first ones")
    for kind, word in (("release_ms", "release"), ("policy_ms", "policy")):
        first, last = past[kind]["first"], past[kind]["last"]
        print(f"  {word:8} {first:7.1f} ms, then {last:7.1f} ms   {last / first:5.2f} x")
    print(f"  a new device then fetches {past['cold_bytes']:,} bytes, and a warm sync takes {past['warm_ms']:.1f} ms")


if __name__ == "__main__":
    main()
