"""Keys that change, metadata that expires, files that nothing names any more."""

import json
import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, TargetFile
from tuf_device import Device
from tuf_repository import BASE, CONFIG, approve, digest_of, policy, propose

from pocketloop.contracts.delivery import adapter_target
from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.home import Home
from pocketloop.contracts.rollout import OfflineRole
from pocketloop.delivery.keys import KeyRing
from pocketloop.delivery.metadata import sign
from pocketloop.delivery.proposals import published_name
from pocketloop.delivery.repository import Repository


@pytest.fixture
def phone(repository: Repository, folder: Path) -> Device:
    """A device that has synced before anything happens."""
    found = Device(folder / "phone", repository.storage, repository.root_bytes())
    found.sync("functions", BASE)
    return found


def expires(repository: Repository) -> dict[str, datetime]:
    return {role.role: role.expires for role in repository.status().roles}


def names(repository: Repository, role: str) -> set[str]:
    return {key.name for found in repository.status().roles if found.role == role for key in found.keys}


def forge(repository: Repository, role: str, key_file: Path, version: int) -> None:
    """Publish `timestamp` as somebody would who holds a stolen key and the storage's password."""
    metadata = Metadata.from_bytes(repository.storage.get("metadata/timestamp.json"))
    metadata.signed.version = version
    metadata.signatures.clear()
    ring = KeyRing(key_file.parent)
    key = ring.public(key_file.stem)
    assert key is not None
    sign(metadata, [ring.signer(key)])
    repository.storage.put("metadata/timestamp.json", metadata.to_bytes())


def test_an_old_online_key_counts_for_nothing_after_its_rotation(
    repository: Repository, phone: Device, folder: Path
) -> None:
    assert repository.rotate("online").complete
    assert names(repository, "timestamp") == names(repository, "channels") == {"online-2"}
    phone.sync("functions", BASE)
    forge(repository, "timestamp", folder / "home" / "keys" / "online.pem", 1000)
    with pytest.raises(UnsignedMetadataError):
        phone.updater().refresh()


def test_a_rotation_ends_a_fast_forward_by_a_stolen_online_key(
    repository: Repository, phone: Device, folder: Path
) -> None:
    forge(repository, "timestamp", folder / "home" / "keys" / "online.pem", 10**6)
    phone.sync("functions", BASE)
    repository.rotate("online")
    repository.set_policy(policy(2, stable=digest_of(2)))
    assert phone.sync("functions", BASE)["stable"] == digest_of(2)


def test_a_rotation_drops_what_a_thief_made_of_the_channels(repository: Repository, phone: Device) -> None:
    state = repository.state()
    for name, data in (
        ("functions", b"not a policy"),
        ("intent", b"[]"),
        ("nobody", policy(9).model_dump_json().encode()),
    ):
        target = TargetFile.from_data(f"channels/{name}/{BASE}.json", data, ["sha256"])
        repository.storage.put(published_name(target), data)
        state.channels.signed.targets[target.path] = target
    state.channels.signed.version += 1
    state.channels.signatures.clear()
    repository.commit(state, {"channels": repository.committer.sign_channels(state.channels, state.targets)})
    with pytest.raises(DeliveryError, match="policy channels/functions/.* cannot be read"):
        Repository.open(repository.config, repository._home).policies()
    repository.propose_revocation(digest_of(2), "made by the thief")
    repository.sign()
    repository.publish()
    assert repository.rotate("online").complete
    assert repository.policies() == []
    repository.set_policy(policy(10, stable=digest_of(1)))
    assert phone.sync("functions", BASE)["stable"] == digest_of(1)


def test_a_lost_online_key_is_replaced_by_the_root_keys(repository: Repository, phone: Device, folder: Path) -> None:
    (folder / "home" / "keys" / "online.pem").unlink()
    with pytest.raises(DeliveryError, match=r"signed by online, which is not in .* of this machine"):
        repository.set_policy(policy(2, stable=digest_of(2)))
    assert repository.rotate("online").complete
    repository.set_policy(policy(2, stable=digest_of(2)))
    assert phone.sync("functions", BASE)["stable"] == digest_of(2)


def test_an_old_reviewers_key_counts_for_nothing_after_its_rotation(
    repository: Repository, phone: Device, folder: Path
) -> None:
    assert repository.rotate("reviewer-2").complete
    assert names(repository, "stable") == {"reviewer-1", "reviewer-3", "reviewer-4"}
    propose(repository, folder, 3)
    with pytest.raises(DeliveryError, match="none of the keys that can sign what waits"):
        repository.sign(str(folder / "home" / "keys" / "reviewer-2.pem"))
    repository.sign("reviewer-4")
    repository.sign("reviewer-3")
    repository.publish()
    repository.set_policy(policy(2, stable=digest_of(3)))
    assert phone.sync("functions", BASE)["stable"] == digest_of(3)


def test_a_key_made_on_a_reviewers_own_machine_is_rotated_in(repository: Repository, folder: Path) -> None:
    theirs = KeyRing(folder / "laptop")
    key = theirs.make("reviewer-4")
    shutil.copy(theirs.folder / "reviewer-4.pub", folder / "home" / "keys")
    assert repository.rotate("reviewer-2").complete
    found = next(role for role in repository.status().roles if role.role == "stable")
    assert [(entry.keyid, entry.here) for entry in found.keys if entry.name == "reviewer-4"] == [(key.keyid, False)]


def test_a_key_that_is_in_use_cannot_stand_for_a_second_person(repository: Repository, folder: Path) -> None:
    keys = folder / "home" / "keys"
    shutil.copy(keys / "reviewer-1.pub", keys / "reviewer-4.pub")
    with pytest.raises(DeliveryError, match="is the same key"):
        repository.rotate("reviewer-2")
    assert repository.proposal().versions == {}


def test_roots_change_hands_and_devices_follow_from_any_version(
    repository: Repository, phone: Device, folder: Path
) -> None:
    for _ in range(3):
        repository.rotate("root-1" if "root-1" in names(repository, "root") else "root")
    assert repository.status().roles[0].version == 4
    assert phone.sync("functions", BASE)["stable"] == digest_of(1)
    fresh = Device(folder / "fresh", repository.storage, repository.root_bytes())
    assert fresh.sync("functions", BASE)["stable"] == digest_of(1)


def test_a_new_threshold_comes_with_new_keys(folder: Path, phone: Device) -> None:
    config = CONFIG.model_copy(update={"reviewers": OfflineRole(keys=4, threshold=3)})
    repository = Repository.open(config, Home(folder / "home"))
    assert repository.rotate("reviewers").complete
    assert names(repository, "stable") == {f"reviewer-{number}" for number in (4, 5, 6, 7)}
    propose(repository, folder, 3)
    repository.sign("reviewer-4")
    assert not repository.sign("reviewer-5").complete
    assert repository.sign("reviewer-7").complete
    repository.publish()
    repository.set_policy(policy(2, stable=digest_of(3)))
    assert phone.sync("functions", BASE)["stable"] == digest_of(3)


def test_a_rotation_waits_for_root_keys_that_are_elsewhere(repository: Repository, folder: Path) -> None:
    keys, offline = folder / "home" / "keys", folder / "offline"
    offline.mkdir()
    for number in (1, 2):
        (keys / f"root-{number}.pem").rename(offline / f"root-{number}.pem")
    found = repository.rotate("online")
    assert not found.complete
    assert any(line.startswith("root: 0 of 1") for line in found.missing)
    repository.set_policy(policy(2, stable=digest_of(2)))  # the old key still counts
    assert repository.sign(str(offline / "root-2.pem")).complete
    repository.publish()
    assert names(repository, "timestamp") == {"online-2"}


def test_a_rotation_does_not_sign_what_somebody_else_proposed(repository: Repository, folder: Path) -> None:
    digest = propose(repository, folder, 3)
    assert not repository.rotate("reviewer-2").complete
    assert digest not in repository.approved()
    assert {change.action for change in repository.proposal().changes} == {"add", "keys"}


def test_a_name_that_is_no_key_is_refused_with_those_that_are(repository: Repository) -> None:
    with pytest.raises(DeliveryError, match=r"no role has a key 'reviewer-9': expected .*reviewer-1, reviewer-2"):
        repository.rotate("reviewer-9")
    with pytest.raises(DeliveryError, match="no name of a key"):
        repository.rotate("stable")


def test_refresh_signs_again_what_is_in_the_last_third_of_its_life(repository: Repository) -> None:
    start, before = repository.now(), expires(repository)
    assert repository.refresh(start + timedelta(days=1)) == []
    assert expires(repository) == before
    assert repository.refresh(start + timedelta(days=1.5)) == []
    renewed = expires(repository)
    assert {role for role in before if renewed[role] != before[role]} == {"timestamp"}
    assert repository.refresh(start + timedelta(days=5)) == []
    assert expires(repository)["channels"] == start.replace(microsecond=0) + timedelta(days=12)


def test_a_phone_that_slept_for_a_year_wakes_to_a_repository_that_was_kept_alive(
    repository: Repository, phone: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = repository.now()
    for day in range(1, 366):
        assert repository.refresh(start + timedelta(days=day)) == []
    later = start + timedelta(days=365)
    assert all(moment > later for moment in expires(repository).values())
    assert phone.sync("functions", BASE)["stable"] == digest_of(1)


def test_what_only_people_can_renew_is_named_and_staged_for_them(repository: Repository, folder: Path) -> None:
    keys = folder / "home" / "keys"
    for name in ("reviewer-2", "reviewer-3"):
        (keys / f"{name}.pem").rename(folder / f"{name}.pem")
    later = repository.now() + timedelta(days=70)
    (plea,) = repository.refresh(later)
    assert plea.startswith("stable expires on ")
    assert [change.action for change in repository.proposal().changes] == ["renew"]
    assert repository.refresh(later + timedelta(hours=1)) == [plea]
    repository.sign(str(folder / "reviewer-3.pem"))
    repository.publish()
    assert repository.refresh(later) == []


def test_refresh_never_signs_new_content(repository: Repository, folder: Path) -> None:
    digest = propose(repository, folder, 3)
    later = repository.now() + timedelta(days=70)
    (plea,) = repository.refresh(later)
    assert "stable" in plea
    assert repository.proposal().signatures.have == []
    assert digest not in repository.approved()


def test_a_repository_that_expired_comes_back(repository: Repository) -> None:
    late = repository.now() + timedelta(days=400)
    assert repository.refresh(late) == []
    assert all(moment > late for moment in expires(repository).values())


def test_garbage_is_deleted_once_nothing_has_named_it_for_the_grace(
    repository: Repository, phone: Device, folder: Path
) -> None:
    start = repository.now()
    for generation in range(2, 12):
        repository.set_policy(policy(generation, stable=digest_of(generation % 2 + 1)))
    before = repository.storage.names()
    assert repository.collect_garbage(20, now=start) == []
    assert repository.collect_garbage(20, now=start + timedelta(hours=23)) == []
    assert repository.storage.names() == before
    deleted = repository.collect_garbage(20, now=start + timedelta(hours=24))
    assert len(deleted) > 20
    left = repository.storage.names()
    assert sum(name.startswith("targets/channels/") for name in left) == 1
    assert sum("stable" in name and name.startswith("metadata/") for name in left) == 1
    assert phone.sync("functions", BASE)["generation"] == 11
    fresh = Device(folder / "fresh", repository.storage, repository.root_bytes())
    assert fresh.sync("functions", BASE)["generation"] == 11


def test_a_device_in_the_middle_of_a_sync_finishes_while_publisher_and_collector_work(
    repository: Repository, folder: Path
) -> None:
    device = Device(folder / "slow", repository.storage, repository.root_bytes())
    updater = device.updater()
    updater.refresh()
    repository.set_policy(policy(2, stable=digest_of(2)))
    approve(repository, folder, 3)
    repository.collect_garbage(2, grace=timedelta(hours=24))
    info = updater.get_targetinfo(f"channels/functions/{BASE}.json")
    assert json.loads(Path(updater.download_target(info)).read_text())["generation"] == 1
    updater.download_target(updater.get_targetinfo(adapter_target("functions", digest_of(1))))


def test_all_roots_are_kept_for_devices_that_slept_long(repository: Repository, phone: Device) -> None:
    repository.rotate("root")
    repository.rotate("root")
    start = repository.now()
    repository.collect_garbage(20, grace=timedelta(0), now=start)
    assert repository.storage.exists("metadata/1.root.json")
    assert repository.storage.exists("metadata/2.root.json")
    assert phone.sync("functions", BASE)["stable"] == digest_of(1)


def test_old_adapters_retire_but_never_what_is_served_or_protected(repository: Repository, folder: Path) -> None:
    for version in range(3, 9):
        propose(repository, folder, version)
    repository.sign()
    repository.publish()
    repository.collect_garbage(2, protect={digest_of(4)})
    removed = {change.what for change in repository.proposal().changes if change.action == "remove"}
    gone = {2, 3, 5, 6}  # 1 is served, 4 is protected, 7 and 8 are the newest
    assert {name for name in removed if name.endswith(".gguf")} == {
        adapter_target("functions", digest_of(version)) for version in gone
    }
    repository.sign()
    repository.publish()
    assert set(repository.approved()) == {digest_of(version) for version in (1, 4, 7, 8)}
    deleted = repository.collect_garbage(2, grace=timedelta(0))
    assert sum(name.endswith(".gguf") for name in deleted) == len(gone)
    assert approve(repository, folder, 2) in repository.approved()  # retired, not revoked


def test_an_adapter_that_is_served_by_now_is_not_retired(repository: Repository, folder: Path) -> None:
    for version in (3, 4, 5):
        approve(repository, folder, version)
    repository.collect_garbage(2)
    repository.sign()
    repository.set_policy(policy(2, stable=digest_of(2)))
    with pytest.raises(DeliveryError, match="serves .*, which the proposal retires"):
        repository.publish()


def test_collecting_garbage_leaves_the_signatures_of_a_proposal_alone(repository: Repository, folder: Path) -> None:
    for version in (3, 4):
        approve(repository, folder, version)
    propose(repository, folder, 5)
    repository.sign("reviewer-1")
    repository.collect_garbage(2, grace=timedelta(0))
    assert repository.proposal().signatures.have == ["reviewer-1"]


def test_files_of_others_beside_the_repository_are_left_alone(repository: Repository) -> None:
    repository.storage.put("index.html", b"hello")
    repository.storage.put("targets/readme.txt", b"hello")
    repository.collect_garbage(2, grace=timedelta(0))
    assert repository.storage.exists("index.html")
    assert repository.storage.exists("targets/readme.txt")


def test_expired_metadata_is_refused_by_devices(tmp_path: Path) -> None:
    early = CONFIG, Home(tmp_path / "home")
    repository = Repository.create(*early, now=lambda: datetime.now().astimezone() - timedelta(days=3))
    device = Device(tmp_path / "device", repository.storage, repository.root_bytes())
    with pytest.raises(RepositoryError, match="expired"):
        device.updater().refresh()
    Repository.open(*early).refresh()
    device.updater().refresh()


def test_an_old_backup_is_put_in_force_by_a_new_online_key(repository: Repository, phone: Device, folder: Path) -> None:
    cdn = folder / "home" / "cdn"
    shutil.copytree(cdn, folder / "backup")
    approve(repository, folder, 3)
    repository.set_policy(policy(2, stable=digest_of(3)))
    phone.sync("functions", BASE)
    shutil.rmtree(cdn)
    shutil.copytree(folder / "backup", cdn)
    with pytest.raises(RepositoryError):
        phone.updater().refresh()
    with pytest.raises(DeliveryError, match="put an older state back"):
        Repository.open(CONFIG, Home(folder / "home"))
    (folder / "home" / "keys" / "published.json").unlink()
    Repository.open(CONFIG, Home(folder / "home")).rotate("online")
    assert phone.sync("functions", BASE)["stable"] == digest_of(1)


def test_publisher_and_collector_take_turns(repository: Repository, phone: Device, folder: Path) -> None:
    collector = os.fork()
    if collector == 0:
        status = 1
        try:
            for _ in range(40):
                Repository.open(CONFIG, Home(folder / "home")).collect_garbage(2, grace=timedelta(0))
            status = 0
        finally:
            os._exit(status)
    for generation in range(2, 42):
        repository.set_policy(policy(generation, stable=digest_of(generation % 2 + 1)))
    assert os.waitstatus_to_exitcode(os.waitpid(collector, 0)[1]) == 0
    assert phone.sync("functions", BASE)["generation"] == 41
