"""Bad networks, full disks, killed and second processes, wrong clocks: named, and nothing is lost."""

import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from filelock import FileLock
from phones import active, done, files, slot
from world import BASE, NOW, SIZE, World, answer, content, cut, portal, silence

from pocketloop.device import errors
from pocketloop.device.health import started
from pocketloop.device.store import Store
from pocketloop.device.sync import DeviceConfig, sync


def test_a_cut_download_goes_on_where_it_ended(served: World) -> None:
    device = served.device()
    served.meddler.on(f"{served.a}.gguf", cut(served.meddler.app, 200_000))
    with pytest.raises(errors.ConnectionCut, match="ended after 200000 bytes"):
        sync(device, "functions")
    assert active(device) is None
    have = next((device.folder / "files").glob("*.gguf.part")).stat().st_size
    assert 0 < have <= 200_000
    served.meddler.rules.clear()
    served.meddler.asked.clear()
    result = done(device, "installed", served.a)
    assert [ranged for path, ranged in served.meddler.asked if path.endswith(".gguf")] == [f"bytes={have}-"]
    assert result.bytes < SIZE - have + 5000


def test_a_beginning_of_another_file_costs_one_more_download_and_nothing_else(served: World) -> None:
    device = served.device()
    part = device.folder / "files" / f"{served.a}.gguf.part"
    part.parent.mkdir(parents=True)
    for size in (1000, SIZE, SIZE * 2):
        part.write_bytes(b"x" * size)
        done(device, "installed", served.a)
        shutil.rmtree(device.folder)
        part.parent.mkdir(parents=True)


def test_a_server_without_ranges_still_serves(served: World) -> None:
    device = served.device()
    part = device.folder / "files" / f"{served.a}.gguf.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content("first")[:1000])
    served.meddler.on(".gguf", answer(content("first")))
    done(device, "installed", served.a)


def test_a_part_that_is_a_link_is_not_followed(served: World) -> None:
    device = served.device()
    part = device.folder / "files" / f"{served.a}.gguf.part"
    part.parent.mkdir(parents=True)
    outside = served.folder / "precious"
    outside.write_text("mine")
    part.symlink_to(outside)
    with pytest.raises(errors.StorageFault):
        sync(device, "functions")
    assert outside.read_text() == "mine"


NETWORK: list[tuple[str, Callable[[], Any], type[Exception]]] = [
    ("", portal, errors.CaptivePortal),
    (".gguf", portal, errors.CaptivePortal),
    ("timestamp", lambda: answer(b"", 511), errors.CaptivePortal),
    ("timestamp", lambda: answer(b"", 503), errors.ServerFault),
    ("2.root", lambda: answer(b"", 500), errors.ServerFault),
    (".gguf", lambda: answer(b"", 503), errors.ServerFault),
    ("timestamp", lambda: answer(b"", 404), errors.NotPublished),
    (".channels.json", lambda: answer(b"", 404), errors.NotPublished),
    (".gguf", lambda: answer(b"", 404), errors.NotPublished),
    ("targets/channels", lambda: answer(b"", 404), errors.NotPublished),
    ("targets/channels", portal, errors.CaptivePortal),
    ("targets/channels", lambda: answer(b"{}"), errors.TargetTruncated),
    ("targets/channels", lambda: answer(b"{" * 500), errors.EndlessData),
    ("timestamp", lambda: answer(b"", 302, location="file:///etc/passwd"), errors.Unreachable),
    ("timestamp", lambda: answer(b"", 302, location="/metadata/timestamp.json"), errors.Unreachable),
    ("timestamp", silence, errors.TimedOut),
    (".gguf", silence, errors.TimedOut),
    ("timestamp", lambda: answer(b""), errors.MetadataInvalid),
    ("timestamp", lambda: answer(b"[" * 10_000), errors.MetadataInvalid),
]


@pytest.mark.parametrize(("fragment", "reply", "error"), NETWORK)
def test_a_bad_network_has_a_name_changes_nothing_and_passes(
    served: World, fragment: str, reply: Callable[[], Any], error: type[Exception]
) -> None:
    device = served.device()
    done(device, "installed", served.a)
    served.serve(served.b)
    served.meddler.on(fragment, reply())
    hurried = served.device(read_s=0.3) if reply is silence else device
    with pytest.raises(error):
        sync(hurried, "functions")
    assert active(device) == served.a
    assert slot(device).last is not None
    assert slot(device).last.outcome == error.__name__  # type: ignore[union-attr]
    served.meddler.rules.clear()
    done(device, "installed", served.b)


def test_no_connection_has_a_name(world: World) -> None:
    with pytest.raises(errors.Unreachable, match="127.0.0.1:9 cannot be reached"):
        sync(world.device(repository="http://127.0.0.1:9"), "functions")


def test_a_full_disk_is_seen_before_the_download(served: World) -> None:
    device = served.device(reserve=1 << 60)
    with pytest.raises(errors.LowDisk, match="free some space"):
        sync(device, "functions")
    assert not [path for path in served.meddler.paths() if path.endswith(".gguf")]
    assert active(device) is None


def test_a_disk_that_fills_up_meanwhile_leaves_nothing_half(world: World) -> None:
    device = world.device()
    done(device, "installed", world.a)
    world.serve(world.b)

    def limited() -> None:  # writing more than this into one file fails, as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, SIZE // 2))
        with pytest.raises(errors.LowDisk):
            sync(device, "functions")

    assert in_child(limited) == 0
    assert files(device) == {f"{world.a}.gguf", f"{world.a}.json"}
    done(device, "installed", world.b)


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process; gives its exit status (99: it raised)."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_the_old_file_or_the_new_one(world: World) -> None:
    fresh = world.device()
    done(fresh, "installed", world.a)
    world.serve(world.b)
    writes = {"os.rename", "os.remove", "os.mkdir", "os.symlink"}
    survivors = set()
    for number in range(1, 500):
        device = world.device("copy")
        shutil.rmtree(device.folder, ignore_errors=True)
        shutil.copytree(fresh.folder, device.folder, symlinks=True)

        def killed(number: int = number, device: DeviceConfig = device) -> None:
            seen = 0

            def count(event: str, given: tuple[Any, ...]) -> None:
                nonlocal seen
                seen += event in writes or (event == "open" and bool(given[2] & (os.O_WRONLY | os.O_RDWR)))
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            sync(device, "functions")

        status = in_child(killed)
        survivors.add(active(device))
        store = Store(device.folder)
        assert store.adapter_path(active(device) or "").is_file()
        assert store.companion(active(device) or "").adapter == "functions"
        sync(device, "functions")
        assert active(device) == world.b
        if status == 0:
            break
    assert status == 0
    assert number > 20
    assert survivors == {world.a, world.b}


def test_a_second_process_is_told_to_wait(world: World) -> None:
    device = world.device()
    device.folder.mkdir()
    with FileLock(device.folder / "sync.lock"), pytest.raises(errors.DeviceBusy, match="sync.lock"):
        sync(device, "functions")
    done(device, "installed", world.a)


def test_starting_the_app_does_not_wait_for_a_sync(world: World) -> None:
    device = world.device()
    done(device, "installed", world.a)
    with Store(device.folder).syncing():
        assert started(device.folder, "functions", BASE).installed is not None


def test_a_clock_ahead_is_named_and_the_device_keeps_what_it_has(world: World) -> None:
    device = world.device()
    done(device, "installed", world.a)
    ahead = world.device(clock=lambda: NOW + timedelta(days=400))
    with pytest.raises(errors.MetadataExpired, match=r"clock is ahead, or .*held back.*goes on running"):
        sync(ahead, "functions")
    assert active(device) == world.a
    done(device, "unchanged", world.a)  # the wrong time was not believed


def test_a_clock_set_back_cannot_revive_expired_metadata(world: World) -> None:
    device = world.device(clock=lambda: NOW + timedelta(days=6))
    done(device, "installed", world.a)
    result = done(world.device(clock=lambda: NOW - timedelta(days=3000)), "unchanged", world.a)
    assert "clock is at least 3006 days" in result.reason
    shorter = world.forge.signed("timestamp")
    shorter.expires = NOW + timedelta(days=5)
    world.forge.publish()
    with pytest.raises(errors.MetadataExpired):
        sync(world.device(clock=lambda: NOW - timedelta(days=3000)), "functions")


def test_no_signed_time_moves_a_devices_clock(world: World) -> None:
    world.serve(world.a, updated=NOW + timedelta(days=300_000))
    device = world.device()
    done(device, "installed", world.a)
    done(device, "unchanged", world.a)
