"""A person asks to be forgotten, on a home that has curated data and a registered candidate; everything is real."""

import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sample_candidates
from command_line import Fleet, WarmFleet

from pocketloop.contracts.files import read_jsonl
from pocketloop.contracts.home import Home
from pocketloop.data.release import latest_release, read_release
from pocketloop.privacy.pseudonyms import Pseudonymizer, load_key

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

DEVICE = "phone-4711-of-somebody"
SMALL = [
    "--set=data.sources.1.uri=demo://functions?split=train&n=100",
    "--set=label.min_kappa=-1",
    "--set=scrub.ner.engine=none",
]
NAME, NUMBER, WORD = "Zebulon Quackenbush", "516-555-0147", "bandersnatch"
"""What only this person ever said: a name and a number that are scrubbed, and a word that is not."""


class Forgotten(NamedTuple):
    """A home before and after."""

    fleet: Fleet
    before: str
    """Digest of the release that the device's data touched."""
    told: dict[str, Any]
    """What the dry run said."""
    report: dict[str, Any]
    group: str
    event_ids: list[str]
    scrubbed: dict[str, str]
    """Everybody's scrubbed records before, by event id."""


def posted() -> list[dict[str, Any]]:
    """A person's events, among others' of the demo fleet."""

    def event(place: int, said: str, tool: str, /, **arguments: str) -> dict[str, Any]:
        call = {"role": "assistant", "tool_calls": [{"name": tool, "arguments": arguments}]}
        return {
            "schema": "interaction/1",
            "event_id": f"interaction-7731-{place}",
            "device_id": DEVICE,
            "ts": "2026-11-01T10:00:00Z",
            "adapter": {"skill": "functions", "version": "1"},
            "consent": {"training": True, "policy": "2026-01"},
            "messages": [{"role": "user", "content": said}, call],
            "feedback": {"rating": "up"},
        }

    task = f"feed the {WORD}"
    return [
        event(1, f"call {NAME}", "make_call", contact=NAME),
        event(2, f"call {NUMBER} now", "make_call", number=NUMBER),
        event(3, f"remind me to {task} tomorrow", "set_reminder", task=task, date="tomorrow"),
        event(4, f"remind me to {task} this Friday", "set_reminder", task=task, date="this Friday"),
        event(5, f"remind me to {task} with Zebulon", "set_reminder", task=f"{task} with Zebulon"),
        event(6, "play some music", "play_music") | {"consent": {"training": False, "policy": "2026-01"}},
    ]


@pytest.fixture(scope="module")
def recent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The person's events as a file, a day old."""
    from datetime import UTC, datetime, timedelta

    when = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    path = tmp_path_factory.mktemp("phone") / "events.jsonl.gz"
    broken = json.dumps(posted()[0])[:-40]
    lines = [*(json.dumps(event | {"ts": when}) for event in posted()), broken]
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))
    return path


@pytest.fixture(scope="module")
def forgotten(tmp_path_factory: pytest.TempPathFactory, recent: Path) -> Iterator[Forgotten]:
    fleet = WarmFleet(tmp_path_factory.mktemp("home"))
    home = fleet.home
    fleet.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{home.root / 'mlflow.db'}"
    fleet.run("data", "demo", "--events", "400")
    fleet.run("data", "import", str(recent))
    post_again(home, recent)
    with open(next((home.root / "demo").glob("*.jsonl")), "a") as demo:
        demo.writelines(json.dumps(event) + "\n" for event in posted()[:2])
    fleet.run("curate", "functions", *SMALL)
    before = latest_release(home, "functions")
    assert before is not None
    group = Pseudonymizer(load_key(home)).group(DEVICE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", fleet.environment["MLFLOW_TRACKING_URI"])
        patch.setattr(sample_candidates, "RELEASE", read_release(home.releases / before))
        sample_candidates.register_sample(home, tmp_path_factory.mktemp("bundle") / "bundle", "one")
    scrubbed = scrubbed_records(home)
    told = json.loads(fleet.run("data", "forget", DEVICE, "--dry-run", "--json"))
    report = json.loads(fleet.run("data", "forget", DEVICE, "--json"))
    yield Forgotten(fleet, before, told, report, group, [event["event_id"] for event in posted()], scrubbed)


def scrubbed_records(home: Home) -> dict[str, str]:
    """What ZenML's store holds of scrubbed events, by event id."""
    files = home.zenml.glob("local_stores/*/scrub/scrubbed/*/*/files/events-*.jsonl")
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return {json.loads(line)["event_id"]: line for line in lines}


def post_again(home: Home, recent: Path) -> None:
    """What the collector would have put into the landing zone."""
    from datetime import UTC, datetime

    from pocketloop.data.received import Received

    lines = [line for line in gzip.decompress(recent.read_bytes()).splitlines() if line.endswith(b"}")]
    Received(str(home.received)).write(datetime.now(UTC).date(), lines)


def stands_in(path: Path, needles: list[str]) -> list[str]:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content += gzip.decompress(content)
    if path.suffix == ".parquet":
        import pyarrow.parquet

        content += str(pyarrow.parquet.read_table(path).to_pylist()).encode()
    return [needle for needle in needles if needle.encode() in content]


def everywhere(forgotten: Forgotten) -> dict[str, list[str]]:
    """Files under the home but its releases in which anything of the person stands."""
    root = forgotten.fleet.home.root
    needles = [DEVICE, NAME, "Quackenbush", NUMBER, WORD, forgotten.group, *forgotten.event_ids]
    files = [p for p in root.rglob("*") if p.is_file() and forgotten.fleet.home.releases not in p.parents]
    found = {str(path.relative_to(root)): stands_in(path, needles) for path in files}
    return {path: words for path, words in found.items() if words}


def rows(forgotten: Forgotten, digest: str) -> dict[str, str]:
    """A release's examples of events, by id: whose they are."""
    splits = forgotten.fleet.home.releases / digest / "splits"
    return {
        row["example_id"]: row["group"]
        for path in splits.glob("*.jsonl")
        for row in read_jsonl(path)
        if row["event_ids"]
    }


def test_the_device_was_everywhere_before(forgotten: Forgotten) -> None:
    assert forgotten.group in rows(forgotten, forgotten.before).values()
    raw = forgotten.report["raw"]
    assert (raw["events"], raw["received"], raw["demo"], raw["quarantined"]) == (6, 6, 2, 1)
    erased = {name.split("/")[0] for name in forgotten.report["artifacts"]}
    assert {"collected", "scrubbed", "validated", "labelled", "selected", "dataset"} <= erased
    assert forgotten.report["kept"] > 0


def test_a_dry_run_says_what_will_go_and_removes_nothing(forgotten: Forgotten) -> None:
    same = ["raw", "artifacts", "releases", "versions", "group"]
    assert {key: forgotten.told[key] for key in same} == {key: forgotten.report[key] for key in same}


def test_the_releases_and_versions_that_its_data_touched_are_listed(forgotten: Forgotten) -> None:
    (release,) = forgotten.report["releases"]
    assert (release["digest"], release["adapter"]) == (forgotten.before, "functions")
    (version,) = forgotten.report["versions"]
    assert (version["version"], version["state"], version["dataset_digest"]) == ("1", "candidate", forgotten.before)


def test_not_one_byte_of_it_is_left_but_in_the_immutable_release(forgotten: Forgotten) -> None:
    assert everywhere(forgotten) == {}
    text = "".join(p.read_text() for p in (forgotten.fleet.home.releases / forgotten.before / "splits").glob("*.jsonl"))
    assert WORD in text, "the release stays as it is"
    assert not [value for value in (DEVICE, NAME, NUMBER) if value in text], "and it was always scrubbed"


def test_its_events_are_refused_whichever_way_they_come(forgotten: Forgotten, recent: Path) -> None:
    (imported,) = json.loads(forgotten.fleet.run("data", "import", str(recent), "--json"))
    assert (imported["new"], imported["quarantined"]) == (0, {"forgotten": 7})
    assert "0 new events" in forgotten.fleet.run("data", "demo")
    assert everywhere(forgotten) == {}


@pytest.fixture(scope="module")
def after(forgotten: Forgotten, recent: Path) -> str:
    """Digest of the next release; the collector of another machine, not knowing yet, posted the person's events."""
    post_again(forgotten.fleet.home, recent)
    forgotten.fleet.run("curate", "functions", *SMALL)
    digest = latest_release(forgotten.fleet.home, "functions")
    assert digest is not None and digest != forgotten.before
    return digest


def test_the_next_release_leaves_it_out_and_everybody_else_in(forgotten: Forgotten, after: str) -> None:
    others = {event: line for event, line in forgotten.scrubbed.items() if forgotten.group not in line}
    assert len(others) == len(forgotten.scrubbed) - 5
    assert scrubbed_records(forgotten.fleet.home) == others, "nobody else's record has changed"
    old, new = rows(forgotten, forgotten.before), rows(forgotten, after)
    assert forgotten.group not in new.values()
    left = {example for example, group in old.items() if group != forgotten.group}
    assert len(left & new.keys()) >= 3 * len(left) // 4, "judges learn from everybody: some verdicts change with them"
    with closing(sqlite3.connect(forgotten.fleet.home.events / "log.sqlite")) as log:
        assert log.execute("SELECT count(*) FROM events WHERE device_id = ?", (DEVICE,)).fetchone() == (0,)


def test_forgetting_again_cleans_up_what_came_since_and_lists_the_same(forgotten: Forgotten, after: str) -> None:
    again = json.loads(forgotten.fleet.run("data", "forget", DEVICE, "--json"))
    assert again["releases"] == forgotten.report["releases"]
    assert again["raw"]["received"] == 6
    assert again["artifacts"] == []
    assert everywhere(forgotten) == {}
    printed = forgotten.fleet.run("curate", "functions", *SMALL)
    assert "✓ label" not in printed, "with nothing new, every stage is reused"
