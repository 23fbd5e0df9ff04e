"""Each attack is refused by name, leaves the device with what it had, and does not outlast the attacker."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacked import EVIL, installed, recovers, refused, runs
from forge import Forge, fixed_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, TargetFile
from world import World, answer, companion, content, endless, facts

from pocketloop.contracts.delivery import CHANNELS, STABLE, adapter_target, companion_target
from pocketloop.device import errors
from pocketloop.device.sync import SyncResult, sync, sync_all


def path_of(world: World, digest: str) -> Path:
    return world.forge.target_path(world.forge.signed(STABLE).targets[adapter_target("functions", digest)])


FILES: list[tuple[str, Callable[[bytes], bytes], type[errors.DeviceError]]] = [
    ("one bit flipped", lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:], errors.TargetTampered),
    ("another file of the same size", lambda data: EVIL[: len(data)].ljust(len(data)), errors.TargetTampered),
    ("truncated", lambda data: data[:-1], errors.TargetTruncated),
    ("empty", lambda data: b"", errors.TargetTruncated),
    ("longer", lambda data: data + b"!", errors.EndlessData),
]


@pytest.mark.parametrize(("change", "error"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
@pytest.mark.parametrize("kind", ["gguf", "json"])
def test_a_changed_file(served: World, kind: str, change: Any, error: type[errors.DeviceError]) -> None:
    device = installed(served)
    served.serve(served.b)
    path = path_of(served, served.b)
    if kind == "json":
        target = served.forge.signed(STABLE).targets[companion_target("functions", served.b)]
        path = served.forge.target_path(target)
    honest = path.read_bytes()
    path.write_bytes(change(honest))
    refused(device, error)
    path.write_bytes(honest)
    recovers(served, device, served.b)


def test_endless_data_is_cut_off_at_the_signed_length(served: World) -> None:
    device = installed(served)
    served.serve(served.b)
    served.meddler.on(".gguf", endless())
    refused(device, errors.EndlessData)
    assert not list((device.folder / "files").glob("*.part"))
    served.meddler.rules.clear()
    recovers(served, device, served.b)


@pytest.mark.parametrize("name", ["timestamp", "snapshot", ".channels", "2.root", "policy"])
def test_endless_metadata(served: World, name: str) -> None:
    device = installed(served)
    served.serve(served.b)
    served.meddler.on("targets/channels/" if name == "policy" else name, endless(b"    "))
    refused(device, errors.EndlessData)
    served.meddler.rules.clear()
    recovers(served, device, served.b)


def test_a_whole_repository_rolled_back(world: World) -> None:
    device = world.device()
    assert sync(device, "functions").installed == world.a
    old = world.folder / "old"
    shutil.copytree(world.folder / "cdn", old)
    world.serve(world.a)
    sync(device, "functions")
    refused(world.device(repository=str(old)), errors.MetadataRolledBack)
    recovers(world, device, world.b)


def test_a_snapshot_that_takes_a_role_back(world: World) -> None:
    """The online key signs a newer snapshot that names an older `stable`, from before a revocation."""
    device = installed(world)
    before = Metadata.from_bytes(world.forge.roles[STABLE].to_bytes())
    world.revoke(world.c)
    sync(device, "functions")
    honest, world.forge.roles[STABLE] = world.forge.roles[STABLE], before
    world.forge.publish()
    refused(device, errors.MetadataRolledBack)
    world.forge.roles[STABLE] = honest
    world.forge.publish()
    recovers(world, device, world.b)


def test_a_policy_of_an_older_generation(world: World) -> None:
    device = installed(world)
    world.serve(world.a, generation=50)
    sync(device, "functions")
    world.serve(world.b, generation=49)
    assert "generation 49 where 50 was seen" in refused(device, errors.PolicyRolledBack)
    world.serve(world.b, generation=50)
    refused(device, errors.PolicyRolledBack)
    world.serve(world.b, generation=51)
    assert sync(device, "functions").installed == world.b


def test_a_freeze_ends_with_the_metadatas_expiry(world: World) -> None:
    """Somebody keeps serving yesterday's state: it is valid until it expires, and no longer."""
    device = installed(world)
    frozen = world.folder / "frozen"
    shutil.copytree(world.folder / "cdn", frozen)
    world.serve(world.b)
    later = world.forge.signed("timestamp").expires
    refused(world.device(repository=str(frozen), clock=lambda: later), errors.MetadataExpired)
    recovers(world, device, world.b)


@pytest.mark.parametrize("role", ["snapshot", "targets", STABLE, CHANNELS])
def test_mix_and_match(world: World, role: str) -> None:
    """A validly signed file of another moment stands under the name that the current state asks for."""
    device = installed(world)
    old = world.forge.path(role).read_bytes()
    world.forge.sign(role)
    world.serve(world.b)
    path = world.forge.path(role)
    honest = path.read_bytes()
    path.write_bytes(old)
    refused(device, errors.MetadataMixed)
    path.write_bytes(honest)
    recovers(world, device, world.b)


def test_mix_and_match_by_the_online_key(world: World) -> None:
    """The snapshot names a version of `stable` that the file does not carry."""
    device = installed(world)
    old = Metadata.from_bytes(world.forge.roles[STABLE].to_bytes())
    world.forge.sign(STABLE)
    honest = world.forge.roles[STABLE]
    version = honest.signed.version
    world.forge.publish()
    data = old.to_bytes()
    meta = world.forge.signed("snapshot").meta[f"{STABLE}.json"]
    meta.length, meta.hashes = len(data), TargetFile.from_data("x", data, ["sha256"]).hashes
    (world.forge.folder / "metadata" / f"{version}.{STABLE}.json").write_bytes(data)
    world.forge.sign("snapshot")
    world.forge.signed("timestamp").snapshot_meta = world.forge.meta("snapshot")
    world.forge.sign("timestamp")
    refused(device, errors.MetadataMixed)
    world.forge.sign(STABLE)
    recovers(world, device, world.b)


@pytest.mark.parametrize("keys", [["reviewer-1"], [], ["online"], ["reviewer-1", "online"], ["root-1", "root-2"]])
def test_a_missing_signature(world: World, keys: list[str]) -> None:
    device = installed(world)
    evil = world.forge.add_adapter(EVIL, facts(), companion())
    world.forge.sign(STABLE, keys)
    world.serve(evil)
    refused(device, errors.SignatureMissing)
    del world.forge.signed(STABLE).targets[adapter_target("functions", evil)]
    del world.forge.signed(STABLE).targets[companion_target("functions", evil)]
    world.forge.sign(STABLE)
    recovers(world, device, world.b)


def test_one_reviewer_signing_twice_is_one_reviewer(world: World) -> None:
    device = installed(world)
    world.forge.sign(STABLE, ["reviewer-1"])
    path = world.forge.path(STABLE)
    doubled = json.loads(path.read_bytes())
    doubled["signatures"] = doubled["signatures"] * 2
    path.write_bytes(json.dumps(doubled).encode())
    world.forge.roles[STABLE].signatures.clear()
    meta = world.forge.signed("snapshot").meta
    meta[f"{STABLE}.json"].version = world.forge.signed(STABLE).version
    meta[f"{STABLE}.json"].length = meta[f"{STABLE}.json"].hashes = None
    world.forge.sign("snapshot")
    world.forge.signed("timestamp").snapshot_meta = world.forge.meta("snapshot")
    world.forge.sign("timestamp")
    with pytest.raises((errors.SignatureMissing, errors.MetadataInvalid)):
        sync(device, "functions")
    assert runs(device) == content("first")
    world.forge.sign(STABLE)
    recovers(world, device, world.b)


def test_the_channels_key_claims_an_adapter(world: World) -> None:
    device = installed(world)
    target = TargetFile.from_data("x", EVIL, ["sha256"]).hashes["sha256"]
    names = adapter_target("functions", target), companion_target("functions", target)
    fields = facts().model_dump(mode="json", by_alias=True)
    world.forge.add_target(CHANNELS, names[0], EVIL, fields)
    world.forge.add_target(CHANNELS, names[1], companion().model_dump_json(by_alias=True).encode())
    world.serve(target)
    assert "may not" in refused(device, errors.WrongRole)
    for name in names:
        del world.forge.signed(CHANNELS).targets[name]
    recovers(world, device, world.b)


def test_the_channels_key_delegates_a_role_of_its_own_under_the_name_of_the_reviewers(served: World) -> None:
    """The server shows the reviewers' `stable` once and then the thief's, of the same version.

    A lookup that walks delegations loads the thief's for a policy that `channels` does not have itself, and from then
    on takes it for the one that reviewers signed.
    """
    forge, thief = served.forge, fixed_key("thief")
    intent = served.approve("router", adapter="intent")
    served.serve(intent, adapter="intent", generation=1)
    device = served.device()
    sync_all(device, ["functions", "intent"])
    forge.sign(STABLE)
    honest = forge.path(STABLE).read_bytes()
    evil = forge.add_adapter(EVIL, facts("intent"), companion("intent"))
    forge.keys["thief"] = thief
    forge.sign(STABLE, ["thief"], bump=False)
    forged = forge.path(STABLE).read_bytes()
    role = DelegatedRole(STABLE, [thief.public_key.keyid], 1, False, ["channels/*/*", "stable/*/*"])
    forge.signed(CHANNELS).delegations = Delegations({thief.public_key.keyid: thief.public_key}, {STABLE: role})
    served.serve(evil, adapter="intent", generation=2)
    named = forge.signed("snapshot").meta[f"{STABLE}.json"]
    named.length = named.hashes = None
    forge.sign("snapshot")
    forge.signed("timestamp").snapshot_meta = forge.meta("snapshot")
    forge.sign("timestamp")
    shown = [honest]

    async def by_turns(scope: Any, receive: Any, send: Any) -> None:
        await answer(shown.pop() if shown else forged)(scope, receive, send)

    served.meddler.on(f".{STABLE}.json", by_turns)
    outcomes = sync_all(device, ["functions", "absent", "intent"])
    assert isinstance(outcomes["functions"], SyncResult)
    assert [type(outcomes[name]) for name in ("absent", "intent")] == [errors.NoChannel, errors.NotApproved]
    assert runs(device) == content("first")


def test_a_stolen_online_key_moves_devices_only_among_approved_files(world: World) -> None:
    device = installed(world)
    world.revoke(world.c)
    unknown = TargetFile.from_data("x", EVIL, ["sha256"]).hashes["sha256"]
    world.forge.lay(TargetFile.from_data(adapter_target("functions", unknown), EVIL, ["sha256"]), EVIL)
    world.serve(unknown)
    assert "not signed by the reviewers" in refused(device, errors.NotApproved)
    world.serve(world.a, unknown, 100)
    refused(device, errors.NotApproved)
    world.serve(world.c)
    refused(device, errors.Revoked)
    other = world.approve("router", adapter="intent")
    world.serve(other)
    refused(device, errors.NotApproved)
    recovers(world, device, world.b)


def test_a_repository_with_other_keys(world: World, tmp_path: Path) -> None:
    """Somebody serves a repository of their own, perfectly signed by keys that the app was not shipped with."""
    device = installed(world)
    other = Forge.fresh(tmp_path / "other")
    for name in list(other.keys):
        other.keys[name] = fixed_key(f"not {name}")
    for role in ("targets", STABLE, CHANNELS):
        other.sign(role)
    other.publish()
    for _ in range(world.forge.signed("timestamp").version):
        other.publish()
    refused(world.device(repository=str(tmp_path / "other")), errors.SignatureMissing)
    recovers(world, device, world.b)


def test_a_root_that_the_old_keys_did_not_sign(world: World) -> None:
    device = installed(world)
    honest = dict(world.forge.keys)
    world.forge.keys |= {"root-1": fixed_key("thief"), "root-2": fixed_key("thief 2")}
    world.forge.sign("root")
    refused(device, errors.SignatureMissing)
    path = world.forge.path("root")
    path.unlink()
    world.forge.keys = honest
    world.forge.signed("root").version -= 1
    recovers(world, device, world.b)


def test_a_timestamp_moved_far_ahead_is_left_behind_by_a_root_rotation(world: World) -> None:
    """A stolen online key signs version 2^31; new keys would otherwise look like a rollback for ever."""
    device = installed(world)
    world.forge.signed("timestamp").version = 2**31
    world.forge.sign("timestamp")
    assert sync(device, "functions").action == "unchanged"
    world.forge.signed("timestamp").version = 40
    world.serve(world.b)
    refused(device, errors.MetadataRolledBack)
    forge, new = world.forge, fixed_key("online-2")
    old = forge.keys["online"].public_key.keyid
    for role in ("snapshot", "timestamp"):
        forge.signed("root").revoke_key(old, role)
        forge.signed("root").add_key(new.public_key, role)
    forge.signed("targets").revoke_key(old, CHANNELS)
    forge.signed("targets").add_key(new.public_key, CHANNELS)
    forge.keys["online"] = new
    for role in ("root", "targets", CHANNELS):
        forge.sign(role)
    recovers(world, device, world.b)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=300)
    | st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_answer_at_all_is_an_error_with_a_name(served: World, data: bytes) -> None:
    if not (device := served.device()).folder.exists():
        sync(device, "functions")
    served.meddler.rules[:] = [("", answer(data))]
    with pytest.raises(errors.DeviceError):
        sync(device, "functions")
    assert runs(device) == content("first")


def test_a_role_file_with_a_signature_field_for_every_key_of_the_world_is_bounded(served: World) -> None:
    device = installed(served)
    served.meddler.on("timestamp", answer(b'{"signatures": [' + b'{"keyid": "x", "sig": "00"},' * 100_000))
    refused(device, errors.EndlessData)
    served.meddler.rules.clear()
    recovers(served, device, served.b)
