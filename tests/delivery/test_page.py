import json
import re
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from pocketloop.contracts.rollout import Decision, Guardrail, GuardrailEvidence, Ladder, Rollout, Rung
from pocketloop.delivery.notify import notify
from pocketloop.delivery.page import evidence_figure, render_page, write_page
from pocketloop.delivery.plan import plan

START = datetime(2026, 11, 1, 12, tzinfo=UTC)


def evidence(metric: Any = "crashes", **changes: Any) -> GuardrailEvidence:
    made: dict[str, Any] = {
        "metric": metric,
        "canary_devices": 1200,
        "control_devices": 1180,
        "canary_affected": 31,
        "control_affected": 28,
        "log_e_harm": 0.4,
        "harm_threshold": 5.5,
        "log_e_noninferior": 3.4,
        "noninferior_threshold": 3.0,
        "ratio_low": 0.6,
        "ratio_high": 1.4,
    }
    return GuardrailEvidence(**(made | changes))


def decision(days: float, action: Any, why: str, before: int, after: int, rung: int = 0, *found: GuardrailEvidence):
    at = START + timedelta(days=days)
    reason = f"because of {why}"
    return Decision(
        at=at,
        action=action,
        why=why,
        reason=reason,
        rung=rung,
        ppm_before=before,
        ppm_after=after,
        guardrails=list(found),
    )


@pytest.fixture
def rollout() -> Rollout:
    guardrails = [Guardrail(metric="crashes"), Guardrail(metric="silent")]
    ladder = Ladder(
        rollout="test", rungs=[Rung(percent=10), Rung(percent=50), Rung(percent=100)], guardrails=guardrails
    )
    holds = [decision(day / 4, "hold", "holding", 100_000, 100_000, 0, evidence()) for day in range(1, 5)]
    return Rollout(
        rollout_id="functions-1",
        adapter="functions",
        base_digest="b" * 64,
        version="7",
        released="2",
        digest="a" * 64,
        previous=None,
        ladder=ladder,
        plan=plan(ladder, 20_000, "telemetry of the last week"),
        started=START,
        rung=1,
        rung_started=START + timedelta(days=1.5),
        rungs=[START, START + timedelta(days=1.5)],
        decisions=[
            decision(0, "start", "started", 0, 100_000),
            *holds,
            decision(1.5, "widen", "noninferior", 100_000, 500_000, 0, evidence()),
            decision(
                2, "hold", "holding", 500_000, 500_000, 1, evidence(), evidence("silent", ratio_low=0.0, ratio_high=1e9)
            ),
        ],
    )


def text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<(style|svg).*?</\1>|<[^>]+>", " ", html, flags=re.DOTALL))


def test_the_page_needs_nothing_beside_it_and_is_the_same_for_the_same_record(tmp_path: Path, rollout: Rollout) -> None:
    page = tmp_path / "page.html"
    write_page(page, rollout)
    html = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img)|(src|href)=\"?http|url\((?!#)", html)
    assert html.count("<svg") == 3
    assert render_page(rollout) == html


def test_the_page_tells_the_ladder_the_evidence_and_the_plan(rollout: Rollout) -> None:
    said = text(render_page(rollout))
    assert "functions@7 running" in said
    assert "before it the base alone" in said
    assert "31 of 1,200 28 of 1,180 0.60 to 1.40 1.50 0.4 of 5.5 ✓ not worse" in said
    assert "0.00 to ∞" in said
    assert "20,000 active devices a day (telemetry of the last week)" in said
    assert "hold × 4 holding" in said
    assert "widen noninferior 10 → 50 % because of noninferior" in said
    assert "not reached" in said


def test_harm_is_marked_where_it_was_found(rollout: Rollout) -> None:
    harm = evidence(segment="locale=de-DE", log_e_harm=9.0)
    rollout.decisions.append(decision(3, "roll_back", "segment_harm", 500_000, 0, 1, evidence(), harm))
    rollout.state = "rolled_back"
    said = text(render_page(rollout))
    assert "functions@7 taken back" in said
    assert re.search(r"locale=de-DE .* 9.0 of 5.5 ✗ worse", said)


def test_a_rollout_that_was_never_looked_at_has_a_page(rollout: Rollout) -> None:
    rollout.decisions = rollout.decisions[:1]
    rollout.plan = None
    assert "No telemetry was looked at yet" in text(render_page(rollout))


def test_what_a_reason_or_a_segment_says_is_escaped(rollout: Rollout) -> None:
    bad = evidence(segment="locale=<script>x</script>")
    last = decision(3, "hold", "holding", 500_000, 500_000, 1, evidence(), bad)
    rollout.decisions.append(last.model_copy(update={"reason": "<img src=x>"}))
    html = render_page(rollout)
    assert "<script>" not in html
    assert "<img" not in html


class Receiver(BaseHTTPRequestHandler):
    status = 200
    got: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.mark.parametrize(("status", "problem"), [(204, ""), (500, "answered with 500"), (302, "answered with 302")])
def test_a_decision_is_posted_with_its_evidence_and_a_failure_is_only_reported(rollout, status, problem) -> None:
    Receiver.got.clear()
    Receiver.status = status
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        said = notify(f"http://127.0.0.1:{server.server_port}/hook", rollout, rollout.decisions[-1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert problem in said
    assert bool(said) == bool(problem)
    [body] = Receiver.got
    assert (body["adapter"], body["version"], body["decision"]["action"]) == ("functions", "7", "hold")
    assert body["decision"]["guardrails"][0]["canary_affected"] == 31


def test_nobody_is_notified_without_an_address_and_a_dead_one_is_survived(rollout: Rollout) -> None:
    assert notify("", rollout, rollout.decisions[-1]) == ""
    assert "not delivered: ConnectionError" in notify("http://127.0.0.1:9/", rollout, rollout.decisions[-1])


def looks(*log_e: float) -> list[Decision]:
    return [
        decision(at / 4, "hold", "holding", 100_000, 100_000, 0, evidence(log_e_harm=value), evidence("silent"))
        for at, value in enumerate(log_e)
    ]


def test_evidence_that_crossed_its_threshold_is_red_and_the_rest_is_not(rollout: Rollout) -> None:
    calm, proven = (evidence_figure(rollout, looks(*values)) for values in ((0.0, 0.5), (0.0, 3.0, 9.0)))
    line = "stroke: #b91c1c; stroke-width: 2.2"
    assert line not in calm
    assert line in proven
    for name in ("crashes", "silent", "evidence of harm"):
        assert name in proven


def test_a_segment_is_drawn_only_where_it_proves_harm(rollout: Rollout) -> None:
    decisions = looks(0.0, 0.5)
    for at, value in enumerate((0.1, 9.0)):
        decisions[at].guardrails.append(evidence(segment="locale=de-DE", log_e_harm=value))
    assert "locale=de-DE" in evidence_figure(rollout, decisions)
    assert "locale=de-DE" not in evidence_figure(rollout, decisions[:1])


def test_the_same_looks_give_the_same_drawing(rollout: Rollout) -> None:
    assert evidence_figure(rollout, looks(0.0, 9.0)) == evidence_figure(rollout, looks(0.0, 9.0))
