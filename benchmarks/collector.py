"""Events a second that the collector takes, beside what the disk itself does with the same bytes.

A real `pocketloop collector serve` runs in a process of its own; phones are threads that post over connections that
stay open, each waiting for its answer: first as many as keep the collector busy (the rate, and how long answers then
take), then one alone. Every event is accepted and on disk. The baseline appends the same batches to a file, one after
another, each with an fsync: the least that an answer costs. The ratio is the figure that carries over to another
machine.
"""

import argparse
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCHES = (1, 20, 500)
ALONE = 100
"""Posts of one phone alone."""
SERVE = "from pocketloop.cli.main import main; main()"


def bodies(batch: int, count: int, first: int) -> list[bytes]:
    """`count` bodies of `batch` events each; no event id comes twice."""
    from pocketloop.data.demo import demo_events

    events = list(demo_events(500, seed=5))
    numbers = itertools.count(first)
    return [
        b"".join(
            json.dumps({**events[n % 500], "event_id": f"bench-{n}"}).encode() + b"\n"
            for n in itertools.islice(numbers, batch)
        )
        for _ in range(count)
    ]


def disk(folder: Path, posts: list[bytes], seconds: float) -> float:
    """Posts a second that a loop of append and fsync puts on disk."""
    with open(folder / "baseline", "ab", buffering=0) as out:
        start = time.perf_counter()
        for done, body in enumerate(itertools.cycle(posts), 1):
            out.write(body)
            os.fsync(out.fileno())
            if (spent := time.perf_counter() - start) > seconds:
                return done / spent
    raise AssertionError


class Phone:
    """A connection that posts: no HTTP library, so that the cores are the collector's."""

    def __init__(self, port: int, token: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = (
            f"POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
            "content-type: application/x-ndjson\r\ncontent-length: "
        ).encode()

    def post(self, body: bytes, events: int) -> None:
        """Post and insist that all events are accepted."""
        self._socket.sendall(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))
        answer = self._socket.recv(1 << 16)
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._socket.recv(1 << 16)
        length = int(answer[:end].lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(answer) < end + 4 + length:
            answer += self._socket.recv(1 << 16)
        if b'"accepted":%d,' % events not in answer:
            raise SystemExit(f"not accepted: {answer[:500].decode()}")


def load(port: int, token: str, posts: list[bytes], batch: int, phones: int) -> dict[str, float]:
    """Post everything over `phones` connections; events a second and quantiles of the time to an answer."""
    waiting: Iterator[bytes] = iter(posts)
    lock = threading.Lock()
    times: list[float] = []

    def run(phone: Phone) -> None:
        while True:
            with lock:
                body = next(waiting, None)
            if body is None:
                return
            start = time.perf_counter()
            phone.post(body, batch)
            times.append(time.perf_counter() - start)

    threads = [threading.Thread(target=run, args=(Phone(port, token),)) for _ in range(phones)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - start
    times.sort()
    at = {"p50": times[len(times) // 2], "p99": times[int(len(times) * 0.99)]}
    return {"events_per_second": len(posts) * batch / spent, **{name: 1000 * value for name, value in at.items()}}


def started(home: Path) -> tuple[subprocess.Popen[bytes], int, str]:
    """A collector that listens, its port, and an app's token."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {**os.environ, "POCKETLOOP_HOME": str(home), "POCKETLOOP_EVENTS": ""}

    def command(*words: str) -> list[str]:
        return [sys.executable, "-c", SERVE, "collector", *words]

    made = subprocess.run(command("token", "add", "bench", "--json"), env=environment, capture_output=True, check=True)
    process = subprocess.Popen(command("serve", "--port", str(port)), env=environment, stdout=subprocess.DEVNULL)
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    return process, port, json.loads(made.stdout)["token"]


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """What the collector has used so far (Linux)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="of batches of 500; batches of 1 are a tenth")
    parser.add_argument("--phones", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; by default the temporary folder")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        process, port, token = started(Path(folder) / "home")
        try:
            first = 0
            for batch in BATCHES:
                count = max(40, int(options.events * min(1.0, (batch + 9) / 100)) // batch)
                posts = bodies(batch, count + ALONE, first)
                first += (count + ALONE) * batch
                alone = load(port, token, posts[:ALONE], batch, 1)
                before = cpu_seconds(process)
                row: dict[str, Any] = load(port, token, posts[ALONE:], batch, options.phones)
                row["events_per_cpu_second"] = count * batch / (cpu_seconds(process) - before)
                row |= {f"{name}_alone": alone[name] for name in ("p50", "p99")}
                row["disk"] = batch * disk(Path(folder), posts, 1.0)
                rows.append({"batch": batch, **row, "ratio": row["events_per_second"] / row["disk"]})
        finally:
            process.terminate()
            process.wait(60)
    if options.json:
        print(json.dumps(rows))
        return
    print(
        f"{'batch':>5} {'events/s':>9} {'per CPU-s':>9}  p50, p99 of answers   of one phone alone   append+fsync  ratio"
    )
    for row in rows:
        busy, alone = (f"{row['p50' + when]:6.1f} {row['p99' + when]:7.1f} ms" for when in ("", "_alone"))
        print(
            f"{row['batch']:5} {row['events_per_second']:9.0f} {row['events_per_cpu_second']:9.0f}  {busy:>19}"
            f"  {alone:>19}  {row['disk']:9.0f}/s  {row['ratio']:5.2f}"
        )


if __name__ == "__main__":
    main()
