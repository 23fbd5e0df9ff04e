import json
from pathlib import Path

import pytest
from sample_candidates import RELEASE

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import write_json
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import Recipe
from pocketloop.data.forget import TouchedRelease, bury, traces_of
from pocketloop.data.received import Received

pytestmark = pytest.mark.slow


def test_a_release_with_a_forgotten_device_in_it_is_not_trained_on(home: Path, zenml_home: Path) -> None:
    from datetime import UTC, datetime

    from steps.release import load_release

    (home / "releases" / "abc").mkdir(parents=True)
    write_json(home / "releases" / "abc" / "release.json", RELEASE.model_copy(update={"digest": "abc"}))
    (home / "releases" / "latest-functions.json").write_text(json.dumps({"digest": "abc"}))
    touched = [TouchedRelease(digest="abc", adapter="functions", records=1)]
    received = Received(str(home / "received"))
    bury(Home(), received, traces_of(Home(), "d1"), touched, datetime(2026, 11, 20, tzinfo=UTC))
    sources = {"sources": [{"kind": "events", "skill": "functions"}]}
    recipe = Recipe.model_validate({"adapter": "functions", "task": "chat", "base": "tiny", "data": sources})
    with pytest.raises(DataError, match=r"release abc holds records.*forgotten on 2026-11-20.*pocketloop curate"):
        load_release.entrypoint(recipe)


def test_scratch_folders_of_living_processes_are_left_alone(home: Path, zenml_home: Path) -> None:
    import os
    from datetime import UTC, datetime

    from steps.forget import forget

    living, ended = home / "work" / f"{os.getpid()}-scrub-x", home / "work" / "999999999-scrub-y"
    for folder in (living, ended):
        folder.mkdir(parents=True)
    report = forget(Home(), Received(str(home / "received")), "d1", datetime(2026, 11, 20, tzinfo=UTC))
    assert (report.work, report.running, report.known) == (1, 1, False)
    assert living.is_dir() and not ended.exists()


def test_collect_takes_in_what_arrived_and_forgets_whom_another_machine_forgot(home: Path, zenml_home: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from pocketloop.data.event_log import inspect_log
    from pocketloop.data.received import device_digest
    from steps.collect import _take_in

    def event(number: int, device: str, day: int) -> bytes:
        made = {
            "event_id": f"e{number}",
            "device_id": device,
            "ts": f"2026-11-{day:02}T10:00:00Z",
            "adapter": {"skill": "functions"},
            "consent": {"training": True, "policy": "2026-01"},
            "messages": [{"role": "user", "content": f"words of {device}"}],
        }
        return json.dumps(made).encode()

    received, now = Received(str(home / "received")), datetime(2026, 11, 20, tzinfo=UTC)
    received.write(now.date(), [event(1, "d1", 18), event(2, "d2", 18), event(3, "d2", 1)])
    assert _take_in(Home(), received, now, 10) == "; 3 newly arrived; 1 events older than 10 days removed"
    received.add_tombstone(device_digest("d2"), now)
    received.write(now.date(), [event(4, "d1", 19), event(5, "d2", 19)])
    told = _take_in(Home(), received, now + timedelta(hours=1), 10)
    assert told == "; 1 newly arrived; 1 lines refused; 1 devices forgotten"
    assert (inspect_log(home / "events").devices, inspect_log(home / "events").forgotten) == (1, 1)
    assert not [p for p in home.rglob("*") if p.is_file() and b"words of d2" in p.read_bytes()]
    assert _take_in(Home(), received, now + timedelta(hours=2), 10) == ""
