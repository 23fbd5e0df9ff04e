"""Makes docs/vectors: what a client in another language checks itself against.

Run it to write the files anew: `python tests/device/vectors.py`. The test beside it says whether they still hold.
"""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from forge import FAR, Forge
from tuf.api.metadata import Metadata

from pocketloop.contracts.delivery import (
    CHANNELS,
    STABLE,
    AdapterFacts,
    ChannelPolicy,
    Companion,
    Probe,
    adapter_target,
    bucket,
    companion_target,
)

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "vectors"
BASE, OTHER = "b" * 64, "d" * 64
WHEN = datetime(2026, 11, 1, 12, tzinfo=UTC)


def buckets() -> list[dict[str, Any]]:
    pairs = [("functions-3", f"device-{n}") for n in range(6)]
    pairs += [("functions-4", "device-0"), ("s", ""), ("", "x"), ("Salz", "Gerät-7"), ("塩", "端末"), ("s", "a" * 128)]
    pairs += [("s", "e\u0301"), ("s", "\u00e9"), ("a:b", "c"), ("a", "b:c")]
    return [{"salt": salt, "device_id": device, "bucket": bucket(salt, device)} for salt, device in pairs]


def arms() -> list[dict[str, Any]]:
    found = []
    for ppm in (0, 1, 10_000, 250_000, 500_000, 600_000, 1_000_000):
        policy = policy_of(1, "a" * 64, "c" * 64 if ppm else None, ppm)
        devices = [f"device-{n}" for n in range(8)]
        cases = [{"device_id": d, "arm": policy.arm(d), "wanted": policy.wanted(d)} for d in devices]
        found.append({"policy": policy.model_dump(mode="json", by_alias=True), "devices": cases})
    return found


def policy_of(generation: int, stable: str | None, canary: str | None = None, ppm: int = 0) -> ChannelPolicy:
    return ChannelPolicy(
        adapter="functions",
        base_digest=BASE,
        generation=generation,
        stable=stable,
        canary=canary,
        canary_ppm=ppm,
        salt="functions-3",
        updated=WHEN,
    )


class Story:
    """States of a small repository, one after another, and what becomes of devices that sync in each."""

    def __init__(self, folder: Path) -> None:
        self.forge = Forge.fresh(folder)
        self.seen: dict[str, str] = {}
        self.states: list[dict[str, Any]] = []
        self.generation = 0
        self.a = self.approve("A")
        self.b = self.approve("B")

    def approve(self, name: str, **changes: Any) -> str:
        fields = {
            "adapter": "functions",
            "version": "3",
            "released": "2",
            "bundle_digest": "c" * 64,
            "base_digest": BASE,
            "task": "function_call",
        }
        probe = Probe(prompt="Hello!", prompt_ids=[2, 7], answer_ids=[9, 1])
        beside = Companion(adapter="functions", task="function_call", probes=[probe])
        digest = self.forge.add_adapter(
            f"GGUF stands for the adapter {name}\n".encode(), AdapterFacts.model_validate(fields | changes), beside
        )
        self.forge.sign(STABLE)
        return digest

    def serve(self, stable: str | None, canary: str | None = None, ppm: int = 0, generation: int = 0) -> None:
        self.generation += 1
        self.forge.set_policy(policy_of(generation or self.generation, stable, canary, ppm))

    def state(self, name: str, *syncs: dict[str, Any], about: str = "") -> None:
        files = {p.relative_to(self.forge.folder).as_posix(): p.read_text() for p in self.forge.folder.rglob("*.*")}
        changed = {path: text for path, text in sorted(files.items()) if self.seen.get(path) != text}
        self.seen = files
        self.states.append({"state": name, "about": about, "files": changed, "syncs": list(syncs)})


def expect(device: str, outcome: str, installed: str | None, **more: Any) -> dict[str, Any]:
    return {"device_id": device, "outcome": outcome, "installed": installed, **more}


def repository(folder: Path) -> dict[str, Any]:
    """device-0 and device-1 lie in the canary and in the rest of the same policy (see buckets.json)."""
    story = Story(folder)
    forge, a, b = story.forge, story.a, story.b
    canary, other = (
        ("device-1", "device-0") if bucket("functions-3", "device-1") < 400_000 else ("device-0", "device-1")
    )
    story.serve(a)
    root = (folder / "metadata" / "1.root.json").read_text()
    story.state("first", expect(canary, "installed", a), expect(canary, "unchanged", a), expect(other, "installed", a))
    story.serve(a, b, 400_000)
    story.state("canary", expect(canary, "installed", b), expect(other, "unchanged", a))
    story.serve(a)
    story.state(
        "withdrawn", expect(canary, "reverted", a), about="the canary ends: no download, the file is still here"
    )
    story.serve(b, generation=2)
    story.state("older policy", expect(canary, "PolicyRolledBack", a), about="a generation that was seen before")
    story.serve("e" * 64)
    story.state("unknown digest", expect(canary, "NotApproved", a), about="the online key names what nobody signed")
    other_base = story.approve("O", base_digest=OTHER)
    story.serve(other_base)
    story.state("other base", expect(canary, "WrongBase", a))
    newer = story.approve("N", min_runtime=2)
    story.serve(newer)
    story.state("newer runtime", expect(canary, "RuntimeTooOld", a), expect(other, "installed", newer, runtime=2))
    tampered = story.approve("T")
    forge.lay(forge.signed(STABLE).targets[adapter_target("functions", tampered)], b"GGUF stands for the adapter X\n")
    story.serve(tampered)
    story.state("tampered", expect(canary, "TargetTampered", a), about="same length, other bytes")
    honest = Metadata.from_bytes(forge.roles[STABLE].to_bytes())
    evil = story.approve("E")
    forge.sign(STABLE, ["reviewer-1"])
    story.serve(evil)
    story.state("one signature", expect(canary, "SignatureMissing", a), about="one of the two that are needed")
    honest.signed.version = forge.signed(STABLE).version
    forge.roles[STABLE] = honest
    forge.sign(STABLE)
    name = adapter_target("functions", evil)
    forge.add_target(CHANNELS, name, b"GGUF stands for the adapter E\n", {"schema": "adapter/1"})
    story.serve(evil)
    story.state("wrong role", expect(canary, "WrongRole", a), about="the online key signs an adapter itself")
    del forge.signed(CHANNELS).targets[name]
    for target in (adapter_target("functions", a), companion_target("functions", a)):
        del forge.signed(STABLE).targets[target]
    forge.signed(STABLE).unrecognized_fields["revoked"] = {a: "it answers in the wrong language"}
    forge.sign(STABLE)
    story.serve(a)
    story.state("revoked", expect(canary, "Revoked", b), about="active goes; the previous file is still approved")
    story.serve(None)
    story.state(
        "base alone",
        expect(canary, "removed", None),
        expect(canary, "MetadataExpired", None, time="2100-01-02T00:00:00Z"),
    )
    old = next(s["files"]["metadata/timestamp.json"] for s in story.states if s["state"] == "first")
    (folder / "metadata" / "timestamp.json").write_text(old)
    story.state("rolled back", expect(canary, "MetadataRolledBack", None), about="the first timestamp again")
    return {
        "base_digest": BASE,
        "adapter": "functions",
        "expires": FAR.isoformat(),
        "time": WHEN.isoformat(),
        "root": root,
        "states": story.states,
    }


def build() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        return {"buckets.json": buckets(), "arms.json": arms(), "repository.json": repository(Path(name))}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, data in build().items():
        (FOLDER / name).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
