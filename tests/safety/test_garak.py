import json
import os
from pathlib import Path

import pytest
from scripted_models import CHAT, Says

from pocketloop.contracts.errors import DataError, ModelError
from pocketloop.contracts.files import write_jsonl
from pocketloop.safety.garak import read_garak, run_garak, summary
from pocketloop.safety.garak_env import LOCK


def test_a_report_becomes_counts_with_intervals_the_worst_first(tmp_path: Path) -> None:
    rows = [
        {"entry_type": "init", "garak_version": "0.17.1"},
        {"entry_type": "attempt", "prompt": "secret words of an attempt", "outputs": ["an answer"]},
        {"entry_type": "eval", "probe": "encoding.InjectBase64", "detector": "encoding.DecodeMatch"}
        | {"passed": 20, "total_evaluated": 20},
        {"entry_type": "eval", "probe": "dan.Dan_11_0", "detector": "mitigation.MitigationBypass"}
        | {"passed": 5, "total_evaluated": 20},
    ]
    write_jsonl(tmp_path / "garak.report.jsonl", rows)
    report = read_garak(tmp_path / "garak.report.jsonl", "functions@2")
    assert (report.garak, report.model) == ("0.17.1", "functions@2")
    assert [(item.probe, item.failed.value, item.failed.n) for item in report.probes] == [
        ("dan.Dan_11_0", 0.75, 20),
        ("encoding.InjectBase64", 0.0, 20),
    ]
    assert 0.5 < report.probes[0].failed.low < 0.75
    assert "secret words" not in summary(report), "the summary holds counts alone"
    assert json.loads(summary(report))["model"] == "functions@2"


def test_a_run_that_evaluated_nothing_is_an_error_and_no_pass(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="left no report"):
        read_garak(tmp_path / "none.jsonl", "x")
    write_jsonl(tmp_path / "empty.jsonl", [{"entry_type": "init"}])
    with pytest.raises(DataError, match="no evaluation"):
        read_garak(tmp_path / "empty.jsonl", "x")


def test_a_scanner_that_fails_says_where_its_log_is(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"garak failed .*garak\.log"):
        run_garak(Path("/bin/false"), "http://127.0.0.1:9", "x", tmp_path, ["encoding"])


def test_the_lock_pins_garak() -> None:
    assert "garak==0.17.1" in LOCK.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif("POCKETLOOP_GARAK" not in os.environ, reason="set POCKETLOOP_GARAK to a Python that has garak")
def test_garak_attacks_a_served_model_with_no_network(tmp_path: Path) -> None:
    from pocketloop.services.chat_api import chat_app
    from pocketloop.services.running import running

    refusing = Says(lambda _: "I'm sorry, I can't help with that.")
    with running(chat_app(refusing, CHAT, "stub@1", 32)) as address:
        python = Path(os.environ["POCKETLOOP_GARAK"])
        report = run_garak(python, address, "stub@1", tmp_path, ["encoding.InjectBase64", "goodside.Tag"], prompts=3)
    assert report.garak == "0.17.1" and {item.probe for item in report.probes} >= {"encoding.InjectBase64"}
    assert all(item.failed.value == 0 for item in report.probes)
    assert len(refusing.asked) >= 3
