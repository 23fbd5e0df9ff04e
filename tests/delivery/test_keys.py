"""Keys: who may read them, who signs with them, and what a signer may get wrong."""

import json
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.errors import DeliveryError
from pocketloop.delivery.keys import KeyRing, key_name, kind_of, next_name, sign_payload

SIGNER = """
import sys
from cryptography.hazmat.primitives.serialization import load_pem_private_key
key = load_pem_private_key(open(sys.argv[1], "rb").read(), None)
print(key.sign(sys.stdin.buffer.read()).hex())
"""


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "keys")


def command(folder: Path, program: str, *arguments: object) -> str:
    script = folder / "signer of mine.py"
    script.write_text(program)
    return " ".join(["command:", sys.executable, f'"{script}"', *map(str, arguments)])


def test_a_private_key_is_its_owners_alone(ring: KeyRing) -> None:
    ring.make("reviewer-1")
    assert stat.S_IMODE(ring.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((ring.folder / "reviewer-1.pem").stat().st_mode) == 0o600
    assert "PRIVATE" not in (ring.folder / "reviewer-1.pub").read_text()


def test_a_key_is_never_written_over(ring: KeyRing) -> None:
    ring.make("online")
    with pytest.raises(DeliveryError, match="never written over"):
        ring.make("online")


def test_a_private_key_that_others_can_read_is_not_used(ring: KeyRing) -> None:
    key = ring.make("online")
    (ring.folder / "online.pem").chmod(0o640)
    with pytest.raises(DeliveryError, match="chmod 600"):
        ring.signer(key)


def test_a_key_whose_public_part_was_handed_in_is_not_made_here(ring: KeyRing, tmp_path: Path) -> None:
    theirs = KeyRing(tmp_path / "theirs").make("reviewer-1")
    ring.folder.mkdir()
    (tmp_path / "theirs" / "reviewer-1.pub").rename(ring.folder / "reviewer-1.pub")
    ours = ring.public_or_new("reviewer-1")
    assert ours.keyid == theirs.keyid
    assert key_name(ours) == "reviewer-1"
    assert not ring.has(ours)
    assert ring.signer(ours) is None


def test_a_program_signs(ring: KeyRing, tmp_path: Path) -> None:
    key = ring.make("reviewer-1")
    elsewhere = tmp_path / "elsewhere.pem"
    (ring.folder / "reviewer-1.pem").rename(elsewhere)
    (ring.folder / "signers.json").write_text(json.dumps({"reviewer-1": command(tmp_path, SIGNER, elsewhere)}))
    signer = ring.signer(key)
    assert signer is not None
    assert ring.has(key)
    signature = sign_payload(signer, b"payload")
    key.verify_signature(signature, b"payload")


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("print('not hex')", "no signature in hex"),
        ("print('ab' * 64)", "no valid signature"),
        ("import sys; sys.exit('the card is not inserted')", "status 1: the card is not inserted"),
    ],
)
def test_a_program_that_gives_no_signature_is_named(
    ring: KeyRing, tmp_path: Path, program: str, complaint: str
) -> None:
    key = ring.make("reviewer-1")
    signer = ring.chosen(f"reviewer-1={command(tmp_path, program)}", [key])
    with pytest.raises(DeliveryError, match=complaint):
        sign_payload(signer, b"payload")


def test_a_program_that_signs_with_another_key_is_found_at_once(ring: KeyRing, tmp_path: Path) -> None:
    key = ring.make("reviewer-1")
    ring.make("reviewer-2")
    address = command(tmp_path, SIGNER, ring.folder / "reviewer-2.pem")
    with pytest.raises(DeliveryError, match="reviewer-1: its signer gave no valid signature"):
        sign_payload(ring.chosen(f"reviewer-1={address}", [key]), b"payload")


def test_a_pem_file_from_a_stick_is_found_by_what_it_is(ring: KeyRing, tmp_path: Path) -> None:
    key, other = ring.make("reviewer-1"), ring.make("reviewer-2")
    stick = tmp_path / "stick.pem"
    (ring.folder / "reviewer-2.pem").rename(stick)
    signer = ring.chosen(str(stick), [key, other])
    assert key_name(signer.public_key) == "reviewer-2"
    with pytest.raises(DeliveryError, match="none of the keys that can sign what waits: reviewer-1"):
        ring.chosen(str(stick), [key])


def test_a_key_that_is_elsewhere_is_said_to_be(ring: KeyRing) -> None:
    key = ring.make("reviewer-1")
    (ring.folder / "reviewer-1.pem").unlink()
    with pytest.raises(DeliveryError, match="not on this machine"):
        ring.chosen("reviewer-1", [key])


@pytest.mark.parametrize(
    "text", ["[", "[]", '{"reviewer-1": 3}', '{"reviewer-1": "carrierpigeon:roof"}', '{"reviewer-1": "command:"}']
)
def test_a_wrong_signers_file_is_an_error_not_an_ignored_key(ring: KeyRing, text: str) -> None:
    key = ring.make("reviewer-1")
    (ring.folder / "signers.json").write_text(text)
    with pytest.raises(DeliveryError, match=r"signers\.json|reviewer-1"):
        ring.signer(key)


@pytest.mark.parametrize("name", ["", "root-0", "../root-1", "reviewer-1\n", "Online", "online.pem"])
def test_names_that_are_no_keys_are_refused(ring: KeyRing, name: str) -> None:
    with pytest.raises(DeliveryError, match="no name of a key"):
        ring.make(name)
    assert not ring.folder.exists()


@given(st.lists(st.sampled_from(["root", "reviewer", "online"]), max_size=20))
def test_a_name_is_never_given_twice(kinds: list[str]) -> None:
    names: list[str] = []
    for kind in kinds:
        name = next_name(kind, names)
        assert name not in names
        assert kind_of(name) == kind
        names.append(name)
