"""What a failed night may say, and to whom."""

import json
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from pocketloop.cli import nightly
from pocketloop.cli.nightly import channels_of, retrain_tonight, words
from pocketloop.contracts.errors import DataError, note_stage, stage_of
from pocketloop.contracts.schedules import Night, Outcome, Schedule
from pocketloop.contracts.webhooks import post_json

NOW = datetime(2026, 11, 2, 3, tzinfo=UTC)


def schedule(**changed: object) -> Schedule:
    values = {"adapter": "functions", "recipe": "functions", "cron": "0 3 * * *", "tz": "UTC", "if_new": 1}
    return Schedule.model_validate({**values, "starter": "crontab", "since": NOW, **changed})


@pytest.mark.usefixtures("home")
def test_a_failure_names_its_stage_and_what_a_person_said_stays_out_of_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        error = DataError("posted.jsonl:3: refused:\n mail jane.roe@example.org or call 516-555-0147")
        note_stage(error, "scrub")
        note_stage(error, "outer")
        raise error

    monkeypatch.setattr(nightly, "news_of", fail)
    with capfd.disabled():
        outcome = retrain_tonight(schedule(), tmp_path / "out.log")
    assert (outcome.result, outcome.step) == ("failed", "scrub")
    assert outcome.more == "pocketloop schedule log functions --output"
    assert "jane.roe" not in outcome.reason and "0147" not in outcome.reason and "\n" not in outcome.reason
    assert "posted.jsonl:3" in (tmp_path / "out.log").read_text()
    assert (tmp_path / "out.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("home")
def test_of_a_bug_only_its_kind_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("I live at 12 Elm Street")

    monkeypatch.setattr(nightly, "news_of", fail)
    outcome = retrain_tonight(schedule(), tmp_path / "out.log")
    assert outcome.reason == "KeyError, which nobody expected"
    assert stage_of(KeyError()) == ""


def test_a_wrong_recipe_fails_the_night_and_not_the_program(tmp_path: Path) -> None:
    outcome = retrain_tonight(schedule(recipe="functoins"), tmp_path / "out.log")
    assert (outcome.result, outcome.step) == ("failed", "before the first stage")


class Inbox(BaseHTTPRequestHandler):
    told: list[dict[str, object]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def test_the_webhook_gets_a_sentence_and_the_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    server = HTTPServer(("127.0.0.1", 0), Inbox)
    thread = Thread(target=server.serve_forever)
    thread.start()
    failed = Outcome(result="failed", step="scrub", reason="no disk", more="pocketloop schedule log functions --output")
    night = Night(due=NOW, started=NOW, pid=1, outcome=failed)
    try:
        monkeypatch.setenv("POCKETLOOP_NOTIFY", f"http://127.0.0.1:{server.server_port}/")
        assert channels_of(schedule())["webhook"]("functions", night) == ""
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    (body,) = Inbox.told
    assert body["text"] == words("functions", night)
    assert body["text"] == (
        "pocketloop: the night of functions due 2026-11-02 03:00 UTC failed in scrub: no disk. "
        "More: pocketloop schedule log functions --output"
    )
    assert (body["adapter"], body["step"], body["due"]) == ("functions", "scrub", "2026-11-02T03:00:00+00:00")


def test_without_an_address_only_the_stacks_alerter_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETLOOP_NOTIFY", "")
    assert set(channels_of(schedule())) == {"alerter"}


@pytest.mark.parametrize(
    "url", ["http://example.org/hook", "ftp://127.0.0.1/", "file:///etc/passwd", "http://127.0.0.1.example.org/"]
)
def test_nothing_is_posted_in_the_clear_to_another_machine(url: str) -> None:
    assert "neither https nor on this machine" in post_json(url, {})
    assert "not delivered: ConnectionError" in post_json("http://127.0.0.1:9/secret", {})
