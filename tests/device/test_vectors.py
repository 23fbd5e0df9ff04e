import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from vectors import FOLDER, build

from pocketloop.contracts.delivery import ChannelPolicy, bucket
from pocketloop.device import errors
from pocketloop.device.errors import DeviceError
from pocketloop.device.store import Store
from pocketloop.device.sync import DeviceConfig, sync


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["buckets.json", "arms.json", "repository.json"])
def test_the_published_vectors_are_those_that_this_code_makes(name: str) -> None:
    assert read(name) == build()[name]


def test_bucket_and_arm_vectors() -> None:
    for case in read("buckets.json"):
        assert bucket(case["salt"], case["device_id"]) == case["bucket"]
    for case in read("arms.json"):
        policy = ChannelPolicy.model_validate(case["policy"])
        for device in case["devices"]:
            assert policy.arm(device["device_id"]) == device["arm"]
            assert policy.wanted(device["device_id"]) == device["wanted"]


def test_this_client_passes_the_repository_vectors(tmp_path: Path) -> None:
    story = read("repository.json")
    for state in story["states"]:
        for path, text in state["files"].items():
            place = tmp_path / "cdn" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        for case in state["syncs"]:
            assert outcome(tmp_path, story, case) == (case["outcome"], case["installed"]), state["state"]


def outcome(folder: Path, story: dict[str, Any], case: dict[str, Any]) -> tuple[str, str | None]:
    device = DeviceConfig(
        folder=folder / case["device_id"],
        repository=str(folder / "cdn"),
        device_id=case["device_id"],
        base_digest=story["base_digest"],
        root=story["root"].encode(),
        runtime=case.get("runtime", 1),
        reserve=0,
        clock=lambda: datetime.fromisoformat(case.get("time", story["time"])),
    )
    try:
        word = sync(device, story["adapter"]).action
    except DeviceError as error:
        word = type(error).__name__
    active = Store(device.folder).read().adapters[story["adapter"]].active
    return word, active.digest if active else None


def test_the_protocols_table_names_every_error_and_whether_to_try_again() -> None:
    text = (FOLDER.parent / "device-protocol.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (yes|no) \|$", text, re.MULTILINE))
    bases = {"DeviceError", "NetworkFault", "Refused"}
    known = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and name not in bases}
    assert table == {
        name: "yes" if kind.retry else "no" for name, kind in known.items() if issubclass(kind, DeviceError)
    }
