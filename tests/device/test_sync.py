import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from forge import fixed_key
from hypothesis import given, settings
from hypothesis import strategies as st
from phones import active, done, files, slot
from world import BASE, OTHER_BASE, World, companion, content, facts

from pocketloop.contracts.delivery import Companion
from pocketloop.contracts.errors import ModelError
from pocketloop.device import errors
from pocketloop.device.explain import explain
from pocketloop.device.health import healthy, started, take_reverts
from pocketloop.device.store import Store
from pocketloop.device.sync import SyncResult, sync, sync_all


def test_a_new_device_installs_what_its_channel_serves(world: World) -> None:
    device = world.device()
    result = done(device, "installed", world.a)
    assert Store(device.folder).adapter_path(world.a).read_bytes() == content("first")
    assert (result.arm, result.wanted, result.generation) == ("stable", world.a, 1)


def test_cold_takes_nine_requests_and_warm_two(served: World) -> None:
    device = served.device()
    cold = done(device, "installed", served.a)
    asked = served.meddler.paths()
    versions = [f"{served.forge.signed(role).version}.{role}" for role in ("snapshot", "targets", "stable", "channels")]
    assert asked[:6] == ["2.root.json", "timestamp.json", *(f"{name}.json" for name in versions)]
    assert len(asked) == cold.requests == 9
    warm = done(device, "unchanged", served.a)
    assert served.meddler.paths() == ["2.root.json", "timestamp.json"]
    assert (warm.requests, warm.bytes < 2000) == (2, True)


def test_a_folder_works_like_a_server(world: World, served: World) -> None:
    local = world.device("local", repository=str(world.folder / "cdn"))
    remote = served.device("remote")
    assert sync(local, "functions") == sync(remote, "functions")


def test_only_devices_in_the_canarys_buckets_take_it(world: World) -> None:
    world.serve(world.a)
    devices = [world.device(f"phone-{n}") for n in range(20)]
    for device in devices:
        sync(device, "functions")
    small = world.serve(world.a, world.b, 20)
    first = {d.device_id for d in devices if sync(d, "functions").installed == world.b}
    assert first == {d.device_id for d in devices if small.arm(d.device_id) == "canary"}
    assert 0 < len(first) < 12
    world.serve(world.a, world.b, 60)
    second = {d.device_id for d in devices if sync(d, "functions").installed == world.b}
    assert first < second  # a wider rung takes nobody out


def test_a_withdrawn_canary_is_swapped_back_without_a_download(served: World) -> None:
    device = served.device()
    done(device, "installed", served.a)
    served.serve(served.a, served.b, 100)
    assert done(device, "installed", served.b).arm == "canary"
    served.serve(served.a)
    served.meddler.paths()
    result = done(device, "reverted", served.a)
    assert not [path for path in served.meddler.paths() if path.endswith(".gguf")]
    assert result.requests == 5  # root, timestamp, snapshot, channels, policy


def test_the_previous_file_is_kept_and_older_ones_go(world: World) -> None:
    device = world.device()
    for digest in (world.a, world.b, world.c):
        world.serve(digest)
        done(device, "installed", digest)
    assert files(device) == {f"{digest}.{kind}" for digest in (world.b, world.c) for kind in ("gguf", "json")}


def test_a_channel_without_an_adapter_leaves_the_base_alone(world: World) -> None:
    device = world.device()
    world.serve(None)
    done(device, "unchanged", None)
    world.serve(world.a)
    done(device, "installed", world.a)
    world.serve(None)
    done(device, "removed", None)
    world.serve(world.a)
    assert done(device, "reverted", world.a).requests == 5  # it was still here


def test_adapters_move_independently_with_metadata_verified_once(served: World) -> None:
    intent = served.approve("router", adapter="intent")
    served.serve(intent, adapter="intent", generation=1)
    device = served.device()
    results = sync_all(device, ["functions", "intent", "absent"])
    assert isinstance(results["functions"], SyncResult)
    assert results["functions"].installed == served.a
    assert active(device, "intent") == intent
    assert isinstance(results["absent"], errors.NoChannel)
    assert served.meddler.paths().count("timestamp.json") == 1
    served.serve(None, adapter="intent", generation=2)
    sync_all(device, ["functions", "intent"])
    assert (active(device), active(device, "intent")) == (served.a, None)


def test_a_file_that_fails_its_probes_is_never_active_and_not_tried_again(served: World) -> None:
    asked: list[str] = []

    def probe(path: Path, _: Companion) -> int:
        asked.append(path.stem)
        assert active(device) == served.a if path.stem == served.b else True
        return 2 if path.stem == served.b else 1  # one in eight may differ

    device = served.device(probe=probe)
    done(device, "installed", served.a)
    served.serve(served.b)
    result = done(device, "kept", served.a)
    assert "2 of 8 golden probes fail" in result.reason
    assert result.reverts == 1
    assert take_reverts(device.folder, "functions") == {served.b: 1}
    assert take_reverts(device.folder, "functions") == {}
    served.meddler.paths()
    again = done(device, "kept", served.a)
    assert len(served.meddler.paths()) == 2
    assert (again.reverts, asked) == (0, [served.a, served.b])
    assert files(device) == {f"{served.a}.gguf", f"{served.a}.json"}


def test_a_canary_that_does_not_work_here_gives_way_to_the_stable_file(world: World) -> None:
    def probe(path: Path, _: Companion) -> int:
        if path.stem == world.b:
            raise ModelError("the file is damaged")
        return 0

    world.serve(world.a, world.b, 100)
    device = world.device(probe=probe)
    result = done(device, "installed", world.a)
    assert (result.arm, result.wanted) == ("canary", world.b)
    assert "cannot be run: the file is damaged" in result.reason
    done(device, "unchanged", world.a)


def test_an_adapter_without_probes_cannot_be_proven(world: World) -> None:
    device = world.device(probe=lambda *_: 0)
    assert done(device, "installed", world.a)
    world.forge.add_adapter(content("second"), facts(), companion(probes=0))
    world.forge.sign("stable")
    world.serve(world.b)
    assert "0 of 0 golden probes" in done(device, "kept", world.a).reason


def test_the_third_start_that_was_never_healthy_takes_the_previous_file_back(world: World) -> None:
    device = world.device()
    for digest in (world.a, world.b):
        world.serve(digest)
        done(device, "installed", digest)

    def start() -> tuple[str | None, str | None]:
        begun = started(device.folder, "functions", BASE)
        return (begun.installed.digest if begun.installed else None), begun.reverted

    assert [start(), start(), start()] == [(world.b, None), (world.b, None), (world.a, world.b)]
    assert done(device, "kept", world.a).wanted == world.b  # not again here
    healthy(device.folder, "functions")
    assert [start(), start(), start(), start()] == [(world.a, None), (world.a, None), (None, world.a), (None, None)]
    assert take_reverts(device.folder, "functions") == {world.a: 1, world.b: 1}


def test_healthy_starts_never_add_up(world: World) -> None:
    device = world.device()
    done(device, "installed", world.a)
    for _ in range(10):
        assert started(device.folder, "functions", BASE).reverted is None
        healthy(device.folder, "functions")


def test_a_crash_loop_over_a_damaged_file_fetches_it_again(world: World) -> None:
    device = world.device()
    done(device, "installed", world.a)
    Store(device.folder).adapter_path(world.a).write_bytes(b"x" * len(content("first")))
    assert [started(device.folder, "functions", BASE).reverted for _ in range(3)] == [None, None, world.a]
    done(device, "installed", world.a)
    assert Store(device.folder).adapter_path(world.a).read_bytes() == content("first")


def test_a_revoked_adapter_goes_even_when_the_policy_still_wants_it(world: World) -> None:
    device = world.device()
    for digest in (world.a, world.b):
        world.serve(digest)
        done(device, "installed", digest)
    world.revoke(world.b)
    with pytest.raises(errors.Revoked, match="it swears"):
        sync(device, "functions")
    assert active(device) == world.a
    world.revoke(world.a)
    with pytest.raises(errors.Revoked):
        sync(device, "functions")
    assert active(device) is None
    assert files(device) == set()


def test_another_base_on_the_phone_empties_the_slot_before_the_network_is_asked(world: World) -> None:
    device = world.device()
    done(device, "installed", world.a)
    moved = world.device(base_digest=OTHER_BASE, repository="http://127.0.0.1:9")
    with pytest.raises(errors.Unreachable):
        sync(moved, "functions")
    assert active(device) is None
    assert started(device.folder, "functions", OTHER_BASE).installed is None


def test_a_damaged_state_file_costs_no_download(served: World) -> None:
    device = served.device()
    done(device, "installed", served.a)
    (device.folder / "state.json").write_text('{"schema": "device/1", "adap')
    served.meddler.paths()
    done(device, "installed", served.a)
    assert not [path for path in served.meddler.paths() if path.endswith(".gguf")]


@pytest.mark.parametrize("damage", ["gone", "short", "companion"])
def test_a_file_damaged_on_the_device_is_fetched_again(world: World, damage: str) -> None:
    device = world.device()
    done(device, "installed", world.a)
    store = Store(device.folder)
    path = store.companion_path(world.a) if damage == "companion" else store.adapter_path(world.a)
    path.unlink() if damage == "gone" else path.write_bytes(b"x")
    done(device, "unchanged" if damage == "companion" else "installed", world.a)
    assert store.companion(world.a).adapter == "functions"
    assert store.adapter_path(world.a).read_bytes() == content("first")


def test_a_rotated_online_key_no_longer_counts(world: World) -> None:
    device = world.device()
    done(device, "installed", world.a)
    forge = world.forge
    new, old = fixed_key("online-2"), forge.keys["online"]
    root, targets = forge.signed("root"), forge.signed("targets")
    for role in ("snapshot", "timestamp"):
        root.revoke_key(old.public_key.keyid, role)
        root.add_key(new.public_key, role)
    targets.revoke_key(old.public_key.keyid, "channels")
    targets.add_key(new.public_key, "channels")
    forge.keys["online"] = new
    for role in ("root", "targets", "channels"):
        forge.sign(role)
    world.serve(world.b)
    done(device, "installed", world.b)
    forge.keys["online"] = old
    world.serve(world.c)
    with pytest.raises(errors.SignatureMissing):
        sync(device, "functions")
    assert active(device) == world.b


STEPS = st.one_of(
    st.tuples(st.just("serve"), st.sampled_from([None, 0, 1, 2]), st.sampled_from([None, 0, 1, 2])),
    st.tuples(st.just("revoke"), st.sampled_from([0, 1, 2]), st.none()),
    st.tuples(st.just("break"), st.sampled_from([0, 1, 2]), st.none()),
    st.tuples(st.just("crash"), st.none(), st.none()),
)


@pytest.mark.slow
@settings(max_examples=20)
@given(steps=st.lists(STEPS, max_size=12))
def test_whatever_happens_a_device_runs_an_approved_file_that_works_here(steps: list[tuple[str, Any, Any]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name))
        known = [world.a, world.b, world.c]
        revoked: set[str] = set()
        broken: set[str] = set()
        device = world.device(probe=lambda path, _: 8 if path.stem in broken else 0)
        for what, first, second in steps:
            if what == "serve":
                stable, canary = (known[n] if n is not None else None for n in (first, second))
                world.serve(stable, canary, 100 if canary else 0)
            elif what == "revoke":
                revoked.add(known[first])
                world.revoke(known[first])
            elif what == "break":
                broken.add(known[first])
            else:
                for _ in range(3):
                    started(device.folder, "functions", BASE)
            failed = None
            try:
                result = sync(device, "functions")
            except errors.Revoked as error:
                failed = error
            found = slot(device)
            runs, kept = (item.digest if item else None for item in (found.active, found.previous))
            assert runs not in revoked
            assert runs not in found.bad
            assert runs is None or runs != kept
            assert {digest for digest in (runs, kept) if digest} == {file.partition(".")[0] for file in files(device)}
            if failed is None:
                assert result.installed == runs
                assert runs == result.wanted or result.wanted in found.bad
            else:
                assert found.policy is not None
                assert {found.policy.wanted(device.device_id), found.policy.stable} & revoked


def test_explain_says_what_runs_and_why(world: World) -> None:
    device = world.device()
    assert "never synced" in explain(device.folder, device.device_id, "functions").story[0]
    world.serve(world.a, world.b, 100)
    sync(device, "functions")
    world.serve(world.a, world.b, 100)
    world.revoke(world.b)
    with pytest.raises(errors.Revoked):
        sync(device, "functions")
    told = explain(device.folder, device.device_id, "functions")
    story = " ".join(told.story)
    assert told.active is None
    for part in ("The base alone runs", "arm 'canary'", "generation 3", "ended with Revoked", "it swears"):
        assert part in story
    assert told.bucket is not None
    assert json.loads(told.model_dump_json())["wanted"] == world.b


def test_the_client_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy = "import sys, pocketloop.device.sync, pocketloop.device.health, pocketloop.device.explain; "
    check = heavy + "print([m for m in ('torch', 'transformers', 'numpy', 'mlflow', 'llama_cpp') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "[]\n"
