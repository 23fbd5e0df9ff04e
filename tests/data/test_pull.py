import json
from datetime import timedelta
from pathlib import Path

import pytest
from event_lines import NOW, event, lines, post, put

from pocketloop.contracts.recipe import Recipe
from pocketloop.data import event_log
from pocketloop.data import pull as pull_module
from pocketloop.data.collect import collect
from pocketloop.data.event_log import import_file, inspect_log
from pocketloop.data.pull import pull
from pocketloop.data.received import Received, device_digest


@pytest.fixture
def received(tmp_path: Path) -> Received:
    return Received(str(tmp_path / "received"))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_each_part_is_taken_in_once(received: Received, log: Path) -> None:
    post(received, *(event(n) for n in range(3)))
    first = pull(received, log, NOW)
    post(received, *(event(n) for n in range(3, 5)))
    second, third = pull(received, log, NOW), pull(received, log, NOW)
    assert [(r.parts, r.lines, r.new) for r in (first, second, third)] == [(1, 3, 3), (1, 2, 2), (0, 0, 0)]
    assert inspect_log(log).pulled == 2


def test_an_event_counts_once_whichever_way_it_came(received: Received, log: Path) -> None:
    put(log, event(1), event(2))
    post(received, event(2), event(3))
    report = pull(received, log, NOW)
    assert (report.new, report.duplicates) == (1, 1)
    assert put(log, event(3)).duplicates == 1


def test_a_part_half_taken_in_before_a_kill_is_finished_the_next_time(
    received: Received, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(received, *(event(n) for n in range(10)))
    monkeypatch.setattr(pull_module, "BATCH", 4)
    stored = 0

    def killed(*given: object) -> None:
        nonlocal stored
        if stored == 2:
            raise KeyboardInterrupt
        stored += 1
        event_log.store(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(pull_module, "store", killed)
    with pytest.raises(KeyboardInterrupt):
        pull(received, log, NOW)
    monkeypatch.setattr(pull_module, "store", event_log.store)
    report = pull(received, log, NOW)
    assert (report.parts, report.new, report.duplicates) == (1, 2, 8)
    assert inspect_log(log).watermark == 10


def test_a_late_event_is_collected_if_it_is_young_enough(received: Received, log: Path, tmp_path: Path) -> None:
    post(received, event(1))
    pull(received, log, NOW)
    late = NOW + timedelta(days=5)
    post(received, event(2, ts="2026-11-02T00:00:00Z"), event(3, ts="2026-08-01T00:00:00Z"), day=late)
    assert pull(received, log, late).new == 2
    sources = [{"kind": "events", "skill": "assistant"}]
    data = {"sources": sources, "max_age_days": 60}
    recipe = Recipe.model_validate({"adapter": "a", "task": "chat", "base": "tiny", "data": data})
    report = collect(recipe, log, tmp_path / "out", late)
    assert (report.events, report.count.left_out, report.watermark) == (2, {"too old": 1}, 3)


def test_what_is_no_event_is_quarantined_and_the_part_is_done(received: Received, log: Path) -> None:
    received.write(NOW.date(), [b"{broken", json.dumps(event(1)).encode()])
    report = pull(received, log, NOW)
    assert (report.parts, report.new, report.quarantined) == (1, 1, {"malformed JSON": 1})
    (entry,) = inspect_log(log).quarantine
    assert entry.where.endswith(".jsonl.gz:1")


def test_a_damaged_part_is_named_and_tried_again_and_the_others_come_in(
    received: Received, log: Path, tmp_path: Path
) -> None:
    torn = post(received, *(event(n) for n in range(2000)))
    post(received, event(5000), day=NOW + timedelta(days=1))
    path = tmp_path / "received" / torn
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    report = pull(received, log, NOW)
    assert report.parts == 1 and 1 < report.new < 2000
    assert len(report.damaged) == 1 and torn in report.damaged[0]
    path.write_bytes(whole)
    again = pull(received, log, NOW)
    assert (again.parts, again.new + report.new, again.damaged) == (1, 2001, [])


def test_events_of_a_forgotten_device_stay_out(received: Received, log: Path) -> None:
    received.add_tombstone(device_digest("d2"), NOW)
    post(received, event(1), event(2, "d2"))
    report = pull(received, log, NOW)
    assert (report.new, report.quarantined, report.forgotten_elsewhere) == (1, {"forgotten": 1}, [])
    again = put(log, event(3, "d2"))
    assert again.quarantined == {"forgotten": 1}, "a file is refused as well, once the log knows of the tombstone"


def test_a_tombstone_of_another_machine_names_the_device_that_is_still_here(received: Received, log: Path) -> None:
    put(log, event(1), event(2, "d2"))
    received.add_tombstone(device_digest("d2"), NOW)
    post(received, event(3, "d2"))
    report = pull(received, log, NOW)
    assert (report.forgotten_elsewhere, report.quarantined) == (["d2"], {"forgotten": 1})


def test_of_a_forgotten_device_not_even_a_refused_line_is_kept(received: Received, log: Path, tmp_path: Path) -> None:
    received.add_tombstone(device_digest("d2"), NOW)
    pull(received, log, NOW)
    bad = [
        event(1, "d2", messages=[]),
        b'{"device_id": "d2", "messages": [{"content": "call Anna',
        json.dumps(event(2, "d2") | {"text": "Anna " * 250_000}).encode(),
    ]
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines(*bad, b"{broken"))
    report = import_file(path, log, NOW)
    assert report.quarantined == {"forgotten": 3, "malformed JSON": 1}
    assert [p.read_bytes() for p in (log / "quarantine").iterdir()] == [b"{broken\n"]
