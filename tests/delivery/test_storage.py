"""Files appear whole or not at all, in a folder, in memory and in an object store."""

import os
from pathlib import Path

import pytest

from pocketloop.contracts.errors import DeliveryError
from pocketloop.delivery.storage import TIMESTAMP, Storage, cache_control


@pytest.fixture(params=["folder", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return Storage(tmp_path / "cdn")
    if request.param == "memory":
        return Storage(f"memory://{tmp_path.name}")
    return Storage(request.getfixturevalue("s3"))


def test_what_was_written_is_read_listed_and_deleted(storage: Storage, tmp_path: Path) -> None:
    assert storage.names() == []
    storage.put("metadata/1.root.json", b"{}")
    big = tmp_path / "big.gguf"
    big.write_bytes(os.urandom(300_000))
    storage.put_file("targets/stable/functions/x.gguf", big)
    assert storage.names() == ["metadata/1.root.json", "targets/stable/functions/x.gguf"]
    assert storage.get("metadata/1.root.json") == b"{}"
    assert storage.get("targets/stable/functions/x.gguf") == big.read_bytes()
    assert storage.size("targets/stable/functions/x.gguf") == 300_000
    storage.put("metadata/1.root.json", b"[]")
    assert storage.get("metadata/1.root.json") == b"[]"
    storage.delete("metadata/1.root.json")
    storage.delete("metadata/1.root.json")
    assert not storage.exists("metadata/1.root.json")
    assert storage.names() == ["targets/stable/functions/x.gguf"]


def test_a_missing_file_is_told_from_a_storage_that_fails(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.get("metadata/2.root.json")
    assert storage.size("metadata/2.root.json") is None


def test_another_process_is_seen_at_once(storage: Storage) -> None:
    other = Storage(storage.address)
    assert not storage.exists("metadata/2.root.json")
    other.put("metadata/2.root.json", b"{}")
    assert storage.exists("metadata/2.root.json")
    other.put(TIMESTAMP, b"1")
    assert storage.get(TIMESTAMP) == b"1"
    other.put(TIMESTAMP, b"2")
    assert storage.get(TIMESTAMP) == b"2"


def test_objects_say_how_long_they_may_be_cached(s3: str) -> None:
    import boto3

    storage = Storage(s3)
    storage.put(TIMESTAMP, b"{}")
    storage.put("metadata/1.root.json", b"{}")
    client, (bucket, prefix) = boto3.client("s3"), s3.removeprefix("s3://").split("/")
    timestamp = client.head_object(Bucket=bucket, Key=f"{prefix}/{TIMESTAMP}")
    root = client.head_object(Bucket=bucket, Key=f"{prefix}/metadata/1.root.json")
    assert timestamp["CacheControl"] == cache_control(TIMESTAMP) == "public, max-age=10"
    assert "immutable" in root["CacheControl"]
    assert root["ContentType"] == "application/json"


def test_a_bucket_that_is_not_there_is_an_error_with_its_address(s3: str) -> None:
    storage = Storage("s3://no-such-bucket/x")
    with pytest.raises(DeliveryError, match=r"s3://no-such-bucket/x: cannot write metadata/timestamp\.json"):
        storage.put(TIMESTAMP, b"{}")


def test_a_writer_that_fails_leaves_no_file_behind(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "cdn")
    with pytest.raises(DeliveryError, match="cannot write"):
        storage.put_file("targets/a/b.gguf", tmp_path / "absent")
    assert storage.names() == []
    assert list((tmp_path / "cdn" / "targets" / "a").iterdir()) == []


def test_what_a_killed_writer_left_is_not_listed(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "cdn")
    storage.put(TIMESTAMP, b"{}")
    (tmp_path / "cdn" / "metadata" / ".timestamp.json.abc.part").write_bytes(b"{")
    assert storage.names() == [TIMESTAMP]


def test_an_address_that_nothing_can_open_is_named() -> None:
    with pytest.raises(DeliveryError, match=r"carrierpigeon://.*delivery\.yaml"):
        Storage("carrierpigeon://roof")
