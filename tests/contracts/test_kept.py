import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from pocketloop.contracts import kept
from pocketloop.contracts.kept import entry_name, forget_device, is_whole, keep, kept_in, renew, tidy


def write(text: str, *groups: str) -> "object":
    def build(folder: Path) -> Iterable[str]:
        (folder / "rows.jsonl").write_text(text)
        return groups

    return build


def test_an_entry_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    made = []

    def build(folder: Path) -> list[str]:
        made.append(folder)
        (folder / "rows.jsonl").write_text("words")
        return ["g-1"]

    for _ in range(2):
        assert (keep(tmp_path / "entry", build) / "rows.jsonl").read_text() == "words"
    assert len(made) == 1
    assert stat.S_IMODE((tmp_path / "entry").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["rows.jsonl", "seal.json"])
@pytest.mark.parametrize("damage", ["gone", "torn", "changed"])
def test_what_is_damaged_is_made_again(tmp_path: Path, name: str, damage: str) -> None:
    entry = keep(tmp_path / "entry", write('{"said":"words"}', "g-1"))
    before = (entry / name).read_bytes()
    if damage == "gone":
        (entry / name).unlink()
    else:
        (entry / name).write_bytes(before[:-3] if damage == "torn" else before.replace(b"s", b"z"))
    assert not is_whole(entry)
    keep(entry, write('{"said":"words"}', "g-1"))
    assert (entry / name).read_bytes() == before


def test_a_failure_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    def fail(folder: Path) -> list[str]:
        (folder / "rows.jsonl").write_text("half")
        raise OSError("disk full")

    entry = keep(tmp_path / "entry", write("whole"))
    with pytest.raises(OSError, match="disk full"):
        renew(entry, fail)
    with pytest.raises(OSError, match="disk full"):
        keep(tmp_path / "other", fail)
    assert is_whole(entry)
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_a_name_follows_everything_that_an_entry_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    name = entry_name("label", "a" * 64, "intent", {"labels": ["x"]})
    assert name == entry_name("label", "a" * 64, "intent", {"labels": ["x"]})
    others = {
        entry_name("validate", "a" * 64, "intent", {"labels": ["x"]}),
        entry_name("label", "b" * 64, "intent", {"labels": ["x"]}),
        entry_name("label", "a" * 64, "chat", {"labels": ["x"]}),
        entry_name("label", "a" * 64, "intent", {"labels": ["x", "y"]}),
    }
    monkeypatch.setattr(kept, "code_digest", lambda: "another version")
    others.add(entry_name("label", "a" * 64, "intent", {"labels": ["x"]}))
    assert len(others | {name}) == 6


def test_what_nobody_used_for_a_month_goes_and_what_a_killed_run_left(tmp_path: Path) -> None:
    month, day = time.time() - 31 * 86400, time.time() - 2 * 86400
    for name, moment in (("old", month), ("used", month), ("young", day), (".torn", day), (".now", time.time())):
        keep(tmp_path / name, write("x"))
        os.utime(tmp_path / name, (moment, moment))
    assert is_whole(tmp_path / "used")
    tidy(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"used", "young", ".now"}
    tidy(tmp_path, suffix="ng")
    assert {path.name for path in tmp_path.iterdir()} == {"young", ".now"}
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_without_a_cache_nothing_lasts() -> None:
    with kept_in(None) as folder:
        keep(folder / "entry", write("x"))
    assert not folder.exists()


def test_a_forgotten_devices_entries_go_and_those_of_which_nobody_can_say(tmp_path: Path) -> None:
    for name, groups in (("hers", ("g-1", "g-2")), ("his", ("g-2",)), ("unsealed", ("g-2",))):
        keep(tmp_path / name, write("x", *groups))
    (tmp_path / "unsealed" / "seal.json").unlink()
    assert forget_device(tmp_path, "g-1", dry_run=True) == 2
    assert forget_device(tmp_path, "g-1") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["his"]
