"""What is signed and still wrong: facts, companions, policies and names that do not fit what was asked for."""

from typing import Any

import pytest
from attacked import EVIL, installed, recovers, refused, runs
from tuf.api.metadata import TargetFile
from world import BASE, OTHER_BASE, World, companion, content, facts

from pocketloop.contracts.delivery import CHANNELS, STABLE, adapter_target, companion_target, policy_target
from pocketloop.contracts.errors import ConfigError
from pocketloop.device import errors
from pocketloop.device.sync import sync


def test_an_adapter_for_another_base(world: World) -> None:
    device = installed(world)
    foreign = world.approve("foreign", base_digest=OTHER_BASE)
    world.serve(foreign)
    assert "this device has bbbbbbbbbbbb" in refused(device, errors.WrongBase)
    recovers(world, device, world.b)


def test_an_adapter_that_needs_a_newer_app(world: World) -> None:
    device = installed(world)
    newer = world.approve("newer", min_runtime=2)
    world.serve(newer)
    assert "needs runtime 2; this app has 1: update it" in refused(device, errors.RuntimeTooOld)
    assert sync(world.device(runtime=2), "functions").installed == newer


@pytest.mark.parametrize(
    "custom",
    [None, {}, [], "x", {"schema": "adapter/2"}, {"adapter": "intent"}, {"min_runtime": "new"}, {"format": "pickle"}],
)
def test_facts_that_do_not_fit_the_name(world: World, custom: Any) -> None:
    device = installed(world)
    target = world.forge.signed(STABLE).targets[adapter_target("functions", world.b)]
    honest = dict(target.unrecognized_fields["custom"])
    target.unrecognized_fields["custom"] = {**honest, **custom} if custom and isinstance(custom, dict) else custom
    world.forge.sign(STABLE)
    world.serve(world.b)
    refused(device, errors.FactsInvalid)
    target.unrecognized_fields["custom"] = honest
    world.forge.sign(STABLE)
    recovers(world, device, world.b)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff\xfe", companion("intent").model_dump_json().encode()])
def test_a_companion_that_cannot_be_read(world: World, body: bytes) -> None:
    device = installed(world)
    name = companion_target("functions", world.b)
    honest = world.forge.signed(STABLE).targets[name]
    world.forge.add_target(STABLE, name, body)
    world.forge.sign(STABLE)
    world.serve(world.b)
    with pytest.raises(errors.FactsInvalid):
        sync(device, "functions")
    assert runs(device) == content("first")
    world.forge.signed(STABLE).targets[name] = honest
    world.forge.sign(STABLE)
    recovers(world, device, world.b)


def test_a_name_that_is_not_the_files_own_hash(world: World) -> None:
    device = installed(world)
    world.forge.add_target(STABLE, adapter_target("functions", "e" * 64), EVIL, facts().model_dump(by_alias=True))
    world.forge.add_target(STABLE, companion_target("functions", "e" * 64), companion().model_dump_json().encode())
    world.forge.sign(STABLE)
    world.serve("e" * 64)
    refused(device, errors.FactsInvalid)
    recovers(world, device, world.b)


TRICKS = [
    "../../../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "a" * 63 + "\0",
    "..\\..\\windows",
    "C:\\windows",
    "a" * 100_000,
    "a" * 63 + "\n",
    "A" * 64,
    "ａ" * 64,
    "a" * 65,
    "file:///etc/passwd",
    "state",
]


@pytest.mark.parametrize("digest", TRICKS, ids=range(len(TRICKS)))
@pytest.mark.parametrize("key", ["stable", "canary"])
def test_a_path_instead_of_a_digest_in_a_policy(world: World, key: str, digest: str) -> None:
    """The names of files on the device are made of digests, and a policy is where an attacker could choose one."""
    device = installed(world)
    before = {path for path in world.folder.rglob("*") if world.folder / "cdn" not in path.parents}
    honest = world.serve(world.a, world.b, 100).model_dump(mode="json", by_alias=True)
    world.forge.set_policy({**honest, "generation": 90, key: digest})
    refused(device, errors.PolicyInvalid)
    after = {path for path in world.folder.rglob("*") if world.folder / "cdn" not in path.parents}
    assert after == before
    world.generation = 90
    recovers(world, device, world.b)


@pytest.mark.parametrize(
    "policy",
    [
        {"adapter": "intent"},
        {"base_digest": OTHER_BASE},
        {"adapter": "../functions"},
        {"schema": "channel/2"},
        {"generation": 0},
        {"canary_ppm": 2_000_000},
        {"canary_ppm": -1},
        {"canary_ppm": 5, "salt": ""},
        {"updated": "yesterday"},
        {"surprise": 1},
    ],
)
def test_a_policy_that_is_not_one(world: World, policy: dict[str, Any]) -> None:
    device = installed(world)
    honest = world.serve(world.b).model_dump(mode="json", by_alias=True)
    world.forge.set_policy({**honest, **policy}, policy_target("functions", BASE))
    refused(device, errors.PolicyInvalid)
    recovers(world, device, world.b)


def test_a_policy_too_large_to_be_one(world: World) -> None:
    device = installed(world)
    world.forge.add_target(CHANNELS, policy_target("functions", BASE), b" " * 100_000)
    world.forge.sign(CHANNELS)
    world.forge.publish()
    refused(device, errors.PolicyInvalid)
    recovers(world, device, world.b)


def test_an_adapters_name_cannot_lead_out_of_the_folder(world: World) -> None:
    for name in ("../functions", "/etc/passwd", "", "a/b", "functions\n", "Functions"):
        with pytest.raises(ConfigError, match="cannot be the name"):
            sync(world.device(), name)
    assert not (world.folder / "phone-1").exists()


@pytest.mark.parametrize("name", [f"stable/functions/../{'e' * 64}.gguf", "/etc/passwd", "stable\\x", "x" * 5000])
def test_names_that_nobody_asks_for_do_nothing(world: World, name: str) -> None:
    """A target is only ever looked up by a name that the device made itself."""
    device = installed(world)
    world.forge.signed(STABLE).targets[name] = TargetFile.from_data(name, EVIL, ["sha256"])
    world.forge.sign(STABLE)
    world.serve(world.b)
    if name.startswith("stable/"):
        assert sync(device, "functions").installed == world.b
    else:
        refused(device, errors.WrongRole)
    assert not (world.folder / "passwd").exists()
