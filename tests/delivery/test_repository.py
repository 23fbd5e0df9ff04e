"""Proposing, signing, publishing, and saying what a channel serves."""

import json
import shutil
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, TargetFile
from tuf_device import Device, adapter_facts, companion
from tuf_repository import BASE, CONFIG, adapter_file, approve, digest_of, policy, propose

from pocketloop.contracts.delivery import AdapterFacts, BaseFacts, adapter_target, companion_target
from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.home import Home
from pocketloop.contracts.rollout import DeliveryConfig, OfflineRole
from pocketloop.delivery.keys import KeyRing
from pocketloop.delivery.repository import Repository

OTHER = "f" * 64


def device(repository: Repository, folder: Path, name: str = "device") -> Device:
    return Device(folder / name, repository.storage, repository.root_bytes())


def test_what_reviewers_signed_reaches_a_device_with_its_facts(repository: Repository, folder: Path) -> None:
    assert device(repository, folder).sync("functions", BASE)["stable"] == digest_of(1)
    updater = device(repository, folder, "other").updater()
    info = updater.get_targetinfo(adapter_target("functions", digest_of(1)))
    assert AdapterFacts.model_validate(info.custom) == adapter_facts(BASE, "1") == repository.approved()[digest_of(1)]
    assert updater.get_targetinfo(companion_target("functions", digest_of(1))) is not None
    assert repository.bases()[BASE].base == "tiny"
    assert [found.generation for found in repository.policies()] == [1]


def test_a_second_repository_is_not_made_over_the_first(repository: Repository, folder: Path) -> None:
    with pytest.raises(DeliveryError, match="holds a repository already"):
        Repository.create(CONFIG, Home(folder / "home"))
    shutil.rmtree(folder / "home" / "cdn")
    with pytest.raises(DeliveryError, match="Restore it from a backup"):
        Repository.create(CONFIG, Home(folder / "home"))


def test_without_a_repository_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="pocketloop cdn init"):
        Repository.open(CONFIG, Home(tmp_path))


def test_nothing_is_public_before_enough_reviewers_signed(repository: Repository, folder: Path) -> None:
    digest = propose(repository, folder, 3)
    before = repository.storage.names()
    assert repository.sign("reviewer-1").have == ["reviewer-1"]
    with pytest.raises(DeliveryError, match=r"1 of 2 signatures; can sign: reviewer-2, reviewer-3"):
        repository.publish()
    assert digest not in repository.approved()
    assert repository.storage.names() == before
    assert repository.sign("reviewer-3").complete
    assert repository.publish()
    assert digest in repository.approved()
    assert not repository.publish()


def test_the_same_reviewer_twice_is_one_signature(repository: Repository, folder: Path) -> None:
    propose(repository, folder, 3)
    repository.sign("reviewer-1")
    assert repository.sign("reviewer-1") == repository.sign("reviewer-1")
    assert not repository.sign("reviewer-1").complete


def test_root_and_online_keys_cannot_sign_for_reviewers(repository: Repository, folder: Path) -> None:
    propose(repository, folder, 3)
    for name in ("root-1", "online"):
        with pytest.raises(DeliveryError, match="none of the keys that can sign what waits"):
            repository.sign(name)


def test_a_proposal_that_grows_loses_its_signatures(repository: Repository, folder: Path) -> None:
    propose(repository, folder, 3)
    assert repository.sign().complete
    propose(repository, folder, 4)
    found = repository.proposal()
    assert found.signatures.have == []
    added = {change.what for change in found.changes if change.action == "add" and change.what.endswith(".gguf")}
    assert added == {adapter_target("functions", digest_of(version)) for version in (3, 4)}
    repository.sign()
    repository.publish()
    assert {digest_of(3), digest_of(4)} <= set(repository.approved())


def test_what_is_approved_already_needs_no_signature(repository: Repository, folder: Path) -> None:
    propose(repository, folder, 1)
    assert repository.proposal().versions == {}
    assert repository.sign().complete
    assert not repository.publish()


def test_approved_facts_and_companions_never_change(repository: Repository, folder: Path) -> None:
    file = adapter_file(folder, 1)
    with pytest.raises(DeliveryError, match="never change"):
        repository.propose_adapter(file, companion(), adapter_facts(BASE, "7"))
    with pytest.raises(DeliveryError, match="never change"):
        changed = companion().model_copy(update={"system": "You are somebody else."})
        repository.propose_adapter(file, changed, adapter_facts(BASE, "1"))


@pytest.mark.parametrize("name", ["base", "other"])
def test_an_adapter_cannot_pass_as_a_base_or_as_another(repository: Repository, folder: Path, name: str) -> None:
    with pytest.raises(DeliveryError, match=name):
        repository.propose_adapter(adapter_file(folder, 9), companion(), adapter_facts(BASE, adapter=name))


def test_a_file_changed_after_it_was_proposed_is_not_published(repository: Repository, folder: Path) -> None:
    digest = propose(repository, folder, 3)
    repository.sign()
    staged = next((folder / "home" / "staging").rglob(f"*{digest}.gguf"))
    staged.write_bytes(b"something else")
    with pytest.raises(DeliveryError, match="changed after it was proposed"):
        repository.publish()
    assert digest not in repository.approved()


def test_a_policy_chooses_only_among_what_is_approved_for_its_adapter_and_base(
    repository: Repository, folder: Path
) -> None:
    with pytest.raises(DeliveryError, match="is not approved for adapter functions"):
        repository.set_policy(policy(2, stable=OTHER))
    with pytest.raises(DeliveryError, match="is not approved for adapter intent"):
        repository.set_policy(policy(2, stable=digest_of(1)).model_copy(update={"adapter": "intent"}))
    with pytest.raises(DeliveryError, match="is not approved"):
        repository.set_policy(policy(2, stable=digest_of(1)).model_copy(update={"base_digest": OTHER}))
    waiting = propose(repository, folder, 3)
    with pytest.raises(DeliveryError, match="is not approved"):
        repository.set_policy(policy(2, canary=waiting, canary_ppm=1, salt="s"))


def test_generations_rise_and_the_same_policy_twice_is_one(repository: Repository) -> None:
    repository.set_policy(policy(3, stable=digest_of(2)))
    names = repository.storage.names()
    repository.set_policy(policy(3, stable=digest_of(2)))
    assert repository.storage.names() == names
    for generation in (2, 3):
        with pytest.raises(DeliveryError, match="is at generation 3"):
            repository.set_policy(policy(generation, stable=digest_of(1)))


def test_a_channel_goes_back_to_what_it_served_before(repository: Repository, folder: Path) -> None:
    phone = device(repository, folder)
    repository.set_policy(policy(2, stable=digest_of(1), canary=digest_of(2), canary_ppm=500_000, salt="s"))
    assert phone.sync("functions", BASE)["canary"] == digest_of(2)
    repository.set_policy(policy(3, stable=digest_of(1)))
    assert phone.sync("functions", BASE)["canary"] is None
    repository.set_policy(policy(4))
    assert phone.sync("functions", BASE)["stable"] is None


def test_channels_move_independently(repository: Repository, folder: Path) -> None:
    file = adapter_file(folder, 7)
    repository.propose_adapter(file, companion("intent"), adapter_facts(BASE, "1", "intent"))
    repository.sign()
    repository.publish()
    repository.set_policy(policy(1, stable=digest_of(7)).model_copy(update={"adapter": "intent"}))
    assert [(found.adapter, found.stable) for found in repository.policies()] == [
        ("functions", digest_of(1)),
        ("intent", digest_of(7)),
    ]
    assert repository.policy("intent", OTHER) is None


def test_a_canary_is_taken_back_even_while_the_revocation_of_what_is_stable_waits(repository: Repository) -> None:
    repository.set_policy(policy(2, stable=digest_of(1), canary=digest_of(2), canary_ppm=10_000, salt="s"))
    repository.propose_revocation(digest_of(1), "it leaks")
    repository.set_policy(policy(3, stable=digest_of(1)))
    served = repository.policy("functions", BASE)
    assert served is not None
    assert (served.stable, served.canary) == (digest_of(1), None)


def test_a_revoked_adapter_leaves_its_channels_and_never_returns(repository: Repository, folder: Path) -> None:
    repository.set_policy(policy(2, stable=digest_of(1), canary=digest_of(2), canary_ppm=10_000, salt="s"))
    phone = device(repository, folder)
    phone.sync("functions", BASE)
    repository.propose_revocation(digest_of(2), "it crashes")
    with pytest.raises(DeliveryError, match="about to be revoked"):
        repository.set_policy(policy(3, stable=digest_of(2)))
    repository.sign()
    repository.publish()
    after = phone.sync("functions", BASE)
    assert (after["stable"], after["canary"], after["canary_ppm"], after["generation"]) == (digest_of(1), None, 0, 3)
    assert repository.revoked() == {digest_of(2): "it crashes"}
    assert phone.updater().get_targetinfo(adapter_target("functions", digest_of(2))) is None
    with pytest.raises(DeliveryError, match="revoked .it crashes. and can never be published again"):
        propose(repository, folder, 2)
    repository.propose_revocation(digest_of(1), "so does this")
    repository.sign()
    repository.publish()
    assert phone.sync("functions", BASE)["stable"] is None
    assert set(repository.revoked()) == {digest_of(1), digest_of(2)}


def test_a_revocation_needs_a_reason_and_something_to_revoke(repository: Repository) -> None:
    with pytest.raises(DeliveryError, match="needs a reason"):
        repository.propose_revocation(digest_of(1), " ")
    with pytest.raises(DeliveryError, match="no approved adapter or base"):
        repository.propose_revocation(OTHER, "typo")


def test_reviewers_sign_on_their_own_machines(repository: Repository, folder: Path) -> None:
    home, digest = folder / "home", propose(repository, folder, 3)
    repository.export_proposal(folder / "out.json")
    for number in (1, 2, 3):
        laptop = folder / f"laptop-{number}"
        (laptop / "keys").mkdir(parents=True)
        shutil.copy(home / "keys" / "root.json", laptop / "keys")
        shutil.move(home / "keys" / f"reviewer-{number}.pem", laptop / "keys")
    for number in (1, 3):
        config = CONFIG.model_copy(update={"repository": str(home / "cdn")})
        reviewer = Repository.open(config, Home(folder / f"laptop-{number}"))
        reviewer.import_proposal(folder / "out.json")
        assert [change.detail["version"] for change in reviewer.proposal().changes if "version" in change.detail] == [
            "3"
        ]
        assert reviewer.sign().have == [f"reviewer-{number}"]
        reviewer.export_proposal(folder / f"signed-{number}.json")
        with pytest.raises(DeliveryError, match="not published"):
            reviewer.publish()
    assert repository.sign().have == []
    assert not repository.import_proposal(folder / "signed-1.json").complete
    assert repository.import_proposal(folder / "signed-3.json").complete
    assert repository.publish()
    assert digest in repository.approved()


def test_a_proposal_for_an_older_state_is_not_signed_over_a_newer_one(repository: Repository, folder: Path) -> None:
    propose(repository, folder, 3)
    repository.export_proposal(folder / "three.json")
    repository.discard()
    approve(repository, folder, 4)
    with pytest.raises(DeliveryError, match=r"made from version 3 of stable, but version 4 is published since"):
        repository.import_proposal(folder / "three.json")


def test_signatures_of_another_proposal_are_not_taken(repository: Repository, folder: Path) -> None:
    propose(repository, folder, 3)
    repository.sign()
    repository.export_proposal(folder / "three.json")
    repository.discard()
    propose(repository, folder, 4)
    with pytest.raises(DeliveryError, match="another proposal waits here"):
        repository.import_proposal(folder / "three.json")
    repository.export_proposal(folder / "four.json")
    three, four = (json.loads((folder / name).read_text()) for name in ("three.json", "four.json"))
    four["roles"]["stable"]["signatures"] = three["roles"]["stable"]["signatures"]
    (folder / "four.json").write_text(json.dumps(four))
    assert repository.import_proposal(folder / "four.json").have == []


@pytest.mark.parametrize(
    ("path", "digest", "custom", "complaint"),
    [
        ("stable/../../etc/passwd", OTHER, {}, "is no name"),
        (f"stable/functions/..%2f{OTHER}.gguf", OTHER, {}, "is no name"),
        (f"stable/functions/{OTHER}.gguf\n", OTHER, {}, "is no name"),
        (f"channels/functions/{OTHER}.json", OTHER, {}, "is no name"),
        (f"stable/functions/{OTHER}.gguf", "e" * 64, "facts", "belong to stable/functions/eee"),
        (f"stable/intent/{OTHER}.gguf", OTHER, "facts", "belong to stable/functions/"),
        (f"stable/base/{OTHER}.gguf", OTHER, "facts", "no facts that devices understand"),
        (f"stable/functions/{OTHER}.gguf", OTHER, {}, "no facts that devices understand"),
        (f"stable/functions/{digest_of(1)}.gguf", digest_of(2), "facts", "immutable"),
    ],
)
def test_a_proposal_that_was_tampered_with_is_neither_signed_nor_published(
    repository: Repository, folder: Path, path: str, digest: str, custom: object, complaint: str
) -> None:
    propose(repository, folder, 3)
    file = folder / "home" / "staging" / "proposal" / "proposal.json"
    data = json.loads(file.read_text())
    facts = adapter_facts(BASE).model_dump(by_alias=True) if custom == "facts" else custom
    target = TargetFile(10, {"sha256": digest}, path, {"custom": facts})
    data["roles"]["stable"]["signed"]["targets"][path] = target.to_dict()
    file.write_text(json.dumps(data))
    with pytest.raises(DeliveryError, match=complaint):
        repository.sign()
    # Even with valid signatures, made by somebody who does not use this program:
    metadata = Metadata.from_bytes(json.dumps(data["roles"]["stable"]).encode())
    for name in ("reviewer-1", "reviewer-2"):
        key = repository.keys.public(name)
        assert key is not None
        metadata.sign(repository.keys.signer(key), append=True)
    data["roles"]["stable"] = metadata.to_dict()
    file.write_text(json.dumps(data))
    with pytest.raises(DeliveryError, match=complaint):
        repository.publish()


def test_a_revocation_cannot_be_taken_back(repository: Repository, folder: Path) -> None:
    repository.propose_revocation(digest_of(2), "it crashes")
    repository.sign()
    repository.publish()
    propose(repository, folder, 3)
    file = folder / "home" / "staging" / "proposal" / "proposal.json"
    data = json.loads(file.read_text())
    data["roles"]["stable"]["signed"]["revoked"] = {}
    file.write_text(json.dumps(data))
    with pytest.raises(DeliveryError, match="takes back the revocation"):
        repository.sign()


def test_what_somebody_put_back_into_the_storage_is_noticed(repository: Repository, folder: Path) -> None:
    timestamp = folder / "home" / "cdn" / "metadata" / "timestamp.json"
    old = timestamp.read_bytes()
    repository.set_policy(policy(2, stable=digest_of(2)))
    timestamp.write_bytes(old)
    with pytest.raises(DeliveryError, match="put an older state back"):
        Repository.open(CONFIG, Home(folder / "home"))


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "stable", "channels"])
def test_a_changed_file_in_the_storage_is_not_built_upon(repository: Repository, folder: Path, role: str) -> None:
    repository.rotate("root")
    named = (folder / "home" / "cdn" / "metadata").glob(f"*{role}.json")
    path = max(named, key=lambda found: (len(found.name), found.name))  # the highest version
    data = json.loads(path.read_text())
    data["signed"]["x"] = "y"
    path.write_text(json.dumps(data))
    with pytest.raises(DeliveryError, match=r"changed|signatures"):
        Repository.open(CONFIG, Home(folder / "home"))


def test_another_publisher_is_waited_for(repository: Repository, folder: Path) -> None:
    other = Repository.open(CONFIG, Home(folder / "home"))
    other._lock.timeout = 0.1
    with repository.exclusive(), pytest.raises(DeliveryError, match="another process publishes"):
        other.set_policy(policy(2, stable=digest_of(2)))
    other.set_policy(policy(2, stable=digest_of(2)))
    assert repository.policy("functions", BASE).generation == 2


def test_a_reviewer_may_sign_with_a_program_from_the_first_day_on(tmp_path: Path) -> None:
    signer = tmp_path / "card.py"
    signer.write_text(
        "import sys\nfrom cryptography.hazmat.primitives.serialization import load_pem_private_key\n"
        "key = load_pem_private_key(open(sys.argv[1], 'rb').read(), None)\n"
        "print(key.sign(sys.stdin.buffer.read()).hex())\n"
    )
    KeyRing(tmp_path / "card").make("reviewer-1")
    home = Home(tmp_path / "home")
    home.keys.mkdir(parents=True)
    shutil.copy(tmp_path / "card" / "reviewer-1.pub", home.keys)
    config = DeliveryConfig(reviewers=OfflineRole(keys=1, threshold=1))
    with pytest.raises(DeliveryError, match="the first stable must be signed here by 1 of reviewer-1, but 0"):
        Repository.create(config, home)
    address = f"command:{sys.executable} {signer} {tmp_path / 'card' / 'reviewer-1.pem'}"
    (home.keys / "signers.json").write_text(json.dumps({"reviewer-1": address}))
    repository = Repository.create(config, home)
    approve(repository, tmp_path, 1)
    assert digest_of(1) in repository.approved()
    assert not (home.keys / "reviewer-1.pem").exists()


def test_the_whole_way_works_on_an_object_store(s3: str, tmp_path: Path) -> None:
    config = DeliveryConfig(repository=s3)
    repository = Repository.create(config, Home(tmp_path / "home"))
    file = tmp_path / "base.gguf"
    file.write_bytes(b"GGUF" * 1000)
    repository.propose_base(file, BaseFacts(base="tiny", quantization="F16", parameters=1))
    approve(repository, tmp_path, 1)
    assert sha256(file.read_bytes()).hexdigest() in repository.bases()
    repository.set_policy(policy(1, stable=digest_of(1)))
    phone = device(repository, tmp_path)
    assert phone.sync("functions", BASE)["stable"] == digest_of(1)
    repository.rotate("online")
    repository.set_policy(policy(2))
    assert phone.sync("functions", BASE)["stable"] is None
    assert Repository.open(config, Home(tmp_path / "home")).policy("functions", BASE).generation == 2
