"""A week of nights on real pipelines: every night ends as it should, and nothing is trained on twice."""

import json
import signal
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from command_line import WarmFleet
from timer_programs import install_programs

from pocketloop.contracts.files import read_jsonl, write_jsonl

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

LABELS = ("music", "smart_home")
RECIPE = """\
adapter: week
task: intent
base: tiny
catalogue: {folder}/labels.json
data:
  sources:
    - {{kind: events, skill: week}}
    - {{kind: examples, uri: {folder}/mine.jsonl}}
label: {{min_kappa: -1}}
scrub: {{ner: {{engine: none}}}}
train:
  lora: {{r: 8, alpha: 16, targets: all-linear}}
  stages: [{{sft: {{epochs: 3, learning_rate: 4.0e-3, batch_size: 8}}}}]
  checkpoints: {{every_seconds: {seconds}}}
evaluation:
  sets: [{{name: heldout, uri: {folder}/heldout.jsonl}}]
  max_new_tokens: 8
gates: [{gate}]
safety: {{behaviour: null}}
export: {{gguf: {{base: Q4_K_M, adapter: F16}}, parity: {{max_score_loss: 0.5}}}}
"""
UNREACHABLE = "{metric: intent_accuracy, min: 1.0}"


class Inbox(BaseHTTPRequestHandler):
    """What the people on call are told."""

    down = False
    told: list[dict[str, Any]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.down:
            self.told.append(body)
        self.send_response(503 if self.down else 204)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


def said(split: str, seed: int, count: int) -> list[dict[str, Any]]:
    """What people say to two skills, half of it to each, in turns."""
    from pocketloop.data.demo import demo_examples

    rows = [row.model_dump(include={"input", "output"}) for row in demo_examples("intent", split, 900, seed)]
    by_label = [[row for row in rows if row["output"] == label] for label in LABELS]
    mixed = [row for pair in zip(*by_label, strict=False) for row in pair]
    assert len(mixed) >= count
    return mixed[:count]


def event(number: int, row: dict[str, Any], consent: bool) -> dict[str, Any]:
    return {
        "schema": "interaction/1",
        "event_id": f"event-{number:04d}",
        "device_id": f"phone-{number % 11}",
        "ts": (datetime.now(UTC) - timedelta(days=1)).isoformat(),
        "adapter": {"skill": "week", "version": "1"},
        "consent": {"training": consent, "policy": "2026-01"},
        "messages": [{"role": "user", "content": row["input"]}, {"role": "assistant", "content": row["output"]}],
        "feedback": {"rating": "up"},
    }


class Week:
    """A home with a schedule, days on which events are posted, and nights."""

    def __init__(self, folder: Path, url: str) -> None:
        self.fleet, self.folder = WarmFleet(folder / "home"), folder
        self.fleet.environment |= {**install_programs(folder, systemd=False), "POCKETLOOP_NOTIFY": url}
        (folder / "labels.json").write_text(json.dumps({"labels": LABELS}))
        self.examples = folder / "mine.jsonl"
        write_jsonl(self.examples, said("train", 5, 60))
        wrong, *right = said("heldout", 11, 24)  # one that nobody who learns from the rest answers so
        write_jsonl(folder / "heldout.jsonl", [wrong | {"output": right[0]["output"]}, *right])
        self.said = iter(said("train", 9, 120))
        self.posted = 0
        self.ask(gate="")
        self.fleet.run(
            "schedule", "create", str(folder / "week.yaml"), "--cron", "0 3 * * *", "--if-new", "5", "--tz", "UTC"
        )
        self.schedule = folder / "home" / "schedules" / "week"
        self.first = json.loads((self.schedule / "schedule.json").read_text())["since"]

    def ask(self, gate: str, seconds: float = 60) -> None:
        """Change the recipe's gate, and how often training writes a checkpoint."""
        (self.folder / "week.yaml").write_text(RECIPE.format(folder=self.folder, gate=gate, seconds=seconds))

    def post(self, count: int) -> None:
        """Phones post `count` events that may be learnt from, and two that may not."""
        batch = [event(self.posted + at, next(self.said), consent=at < count) for at in range(count + 2)]
        self.posted += len(batch)
        write_jsonl(self.folder / "posted.jsonl", batch)
        self.fleet.run("data", "import", str(self.folder / "posted.jsonl"))

    def at(self, day: int) -> str:
        """Three in the morning, `day` nights after the schedule was made."""
        moment = datetime.fromisoformat(self.first).replace(hour=3, minute=0, second=0, microsecond=0)
        return f"{moment + timedelta(days=day):%Y-%m-%dT%H:%M:%S}"

    def night(self, day: int, status: int = 0) -> dict[str, Any]:
        self.fleet.run("schedule", "run", "week", "--as-of", self.at(day), status=status)
        return self.nights()[-1]

    def killed_night(self, day: int) -> None:
        """A night whose process is killed in the middle of training, after a checkpoint."""
        process = self.fleet.start("schedule", "run", "week", "--as-of", self.at(day))
        root = self.folder / "home" / "training"
        while process.poll() is None and not list(root.rglob("checkpoint-*/state.json")):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -9

    def nights(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.fleet.run("schedule", "log", "week", "--json"))
        return found

    def printed(self) -> list[str]:
        return [path.read_text() for path in sorted((self.schedule / "output").iterdir())]

    def candidates(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.fleet.run("review", "list", "--json"))
        return [one for one in found if one["adapter"] == "week"]

    def learnt(self, digest: str) -> set[str]:
        """Ids of the examples in a release."""
        splits = self.folder / "home" / "releases" / digest / "splits"
        return {row["example_id"] for path in splits.glob("*.jsonl") for row in read_jsonl(path)}


def test_each_night_of_a_week_ends_as_it_should_and_nothing_is_trained_on_twice(tmp_path: Path) -> None:
    Inbox.told.clear()
    Inbox.down = False
    server = HTTPServer(("127.0.0.1", 0), Inbox)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        _week(Week(tmp_path, f"http://127.0.0.1:{server.server_port}/"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _week(week: Week) -> None:
    week.post(40)
    monday = week.night(1)
    assert (monday["outcome"]["result"], monday["outcome"]["verdict"], monday["outcome"]["new"]) == (
        "candidate",
        "pass",
        100,
    )

    tuesday = week.night(2)
    assert (tuesday["outcome"]["result"], tuesday["outcome"]["new"]) == ("nothing new", 0)

    week.post(20)
    week.examples.rename(week.folder / "elsewhere.jsonl")
    Inbox.down = True
    wednesday = week.night(3, status=1)
    assert (wednesday["outcome"]["result"], wednesday["outcome"]["step"]) == ("failed", "collect")
    assert wednesday["untold"] == ["webhook"]

    (week.folder / "elsewhere.jsonl").rename(week.examples)
    Inbox.down = False
    week.ask(gate=UNREACHABLE)
    thursday = week.night(4, status=3)
    assert (thursday["outcome"]["result"], thursday["outcome"]["new"]) == ("candidate", 20)
    assert thursday["outcome"]["verdict"] != "pass"
    assert [(told["step"], told["more"]) for told in Inbox.told] == [
        ("collect", "pocketloop schedule log week --output"),
        ("judge", f"pocketloop review show week@{thursday['outcome']['version']}"),
    ]

    week.ask(gate="")
    friday = week.night(5)
    assert friday["outcome"]["result"] == "nothing new", "what a failed candidate has learnt from is not new"

    week.post(20)
    week.ask(gate="", seconds=0.2)
    week.killed_night(6)
    assert week.nights()[-1]["outcome"]["result"] == "running"

    sunday_off_monday_caught_up = week.night(8)
    assert sunday_off_monday_caught_up["missed"] == 1
    assert sunday_off_monday_caught_up["outcome"]["result"] == "candidate"
    assert "going on at step" in week.printed()[-1]
    assert "killed, or the machine went off" in Inbox.told[-1]["reason"]
    assert "nothing is due" in week.fleet.run("schedule", "run", "week", "--as-of", week.at(8))

    results = [night["outcome"]["result"] for night in week.nights()]
    assert results == [
        "candidate",
        "nothing new",
        "failed",
        "candidate",
        "nothing new",
        "failed",
        "candidate",
    ]
    assert all(not night["untold"] for night in week.nights())
    assert len(Inbox.told) == 3

    candidates = week.candidates()
    trained = sum(text.count("✓ train ") for text in week.printed())
    assert trained == len(candidates) == len({one["dataset_digest"] for one in candidates}) == 3
    by_version = sorted(candidates, key=lambda one: int(one["version"]))
    learnt = [week.learnt(one["dataset_digest"]) for one in by_version]
    assert all(len(later - earlier) > 5 for earlier, later in pairwise(learnt))
