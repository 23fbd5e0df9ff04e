"""Keys of the signed repository: who holds which, and how each signs.

A key has a name (`root-1`, `reviewer-2`, `online`) that stands in the signed metadata beside its public part. The
private part lies in the keys folder as NAME.pem, or in somebody else's as the same file, or in no file at all: then
`signers.json` maps the name to a signer's address, such as `hsm:`, `awskms:...` (any scheme of securesystemslib) or
`command:PROGRAM ARGUMENTS`, a program that reads what it signs on stdin and prints the signature in hex.
"""

import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.exceptions import KeyMismatchError
from securesystemslib.signer import (
    SIGNER_FOR_URI_SCHEME,
    CryptoSigner,
    Key,
    SecretsHandler,
    Signature,
    Signer,
    SSlibKey,
)

from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.files import atomic_file

_NAME_FIELD = "x-pocketloop-name"
_NAME = re.compile(r"(root|reviewer|online)(?:-([1-9][0-9]{0,5}))?")
_COMMAND_SECONDS = 300


class CommandSigner(Signer):
    """Signs with a program of the operator's: `command:PROGRAM ARGUMENTS`, split as a shell would, run without one."""

    SCHEME = "command"

    def __init__(self, arguments: list[str], public_key: Key) -> None:
        self._arguments = arguments
        self._public_key = public_key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> "CommandSigner":
        """Split the address into program and arguments."""
        arguments = shlex.split(priv_key_uri.removeprefix(f"{cls.SCHEME}:"))
        if not arguments:
            raise ValueError(f"{priv_key_uri!r} names no program")
        return cls(arguments, public_key)

    @property
    def public_key(self) -> Key:
        """The key whose private part the program uses."""
        return self._public_key

    def sign(self, payload: bytes) -> Signature:
        """Run the program with `payload` on stdin; its stdout is the signature in hex."""
        program = self._arguments[0]
        try:
            done = subprocess.run(
                self._arguments, input=payload, capture_output=True, timeout=_COMMAND_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DeliveryError(f"signer {program}: {error}") from None
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()[-500:]
            raise DeliveryError(f"signer {program} ended with status {done.returncode}: {said}")
        printed = done.stdout.decode("ascii", errors="replace").strip()
        if re.fullmatch(r"(?:[0-9a-fA-F]{2})+", printed) is None:
            raise DeliveryError(f"signer {program} printed no signature in hex")
        return Signature(self._public_key.keyid, printed.lower())


SIGNER_FOR_URI_SCHEME[CommandSigner.SCHEME] = CommandSigner


def key_name(key: Key) -> str:
    """The name that metadata gives a key; its id where it gives none."""
    return str(key.unrecognized_fields.get(_NAME_FIELD, key.keyid))


def next_name(kind: str, taken: Iterable[str]) -> str:
    """A name for another key of this kind (`root`, `reviewer`, `online`) that nothing had before."""
    numbers = [int(found[2] or 1) for name in taken if (found := _NAME.fullmatch(name)) and found[1] == kind]
    return f"{kind}-{max(numbers, default=0) + 1}"


def kind_of(name: str) -> str:
    """`root`, `reviewer` or `online`.

    Raises:
        DeliveryError: no key can have this name.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise DeliveryError(f"{name!r} is no name of a key: expected root-N, reviewer-N or online-N")
    return found[1]


class KeyRing:
    """The keys that this machine can sign with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str) -> Key:
        """Make a key pair: NAME.pem (0600, in a folder that is 0700) and NAME.pub; returns the public key.

        Raises:
            DeliveryError: there is one already.
        """
        kind_of(name)
        path = self.folder / f"{name}.pem"
        if path.exists():
            raise DeliveryError(f"{path} exists; a key is never written over")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        pair = Ed25519PrivateKey.generate()
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self.folder)  # mkstemp gives 0600
        with os.fdopen(handle, "wb") as out:
            out.write(pair.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            out.flush()
            os.fsync(out.fileno())
        Path(temporary).replace(path)
        with atomic_file(path.with_suffix(".pub")) as public:
            public.write_bytes(pair.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return _named(SSlibKey.from_crypto(pair.public_key()), name)

    def public(self, name: str) -> Key | None:
        """The public key NAME as it lies here, from NAME.pem or else NAME.pub (PEM); `None` when neither does."""
        private, public = self.folder / f"{name}.pem", self.folder / f"{name}.pub"
        if private.exists():
            return _named(_load_private(private).public_key, name)
        return _named(_load_public(public), name) if public.exists() else None

    def public_or_new(self, name: str) -> Key:
        """The public key NAME: somebody handed in NAME.pub, or it is made here."""
        return self.public(name) or self.make(name)

    def has(self, key: Key) -> bool:
        """Whether this machine can sign with a key."""
        return key_name(key) in self._addresses() or self._is_here(key)

    def signer(self, key: Key) -> Signer | None:
        """Whatever signs with this key here; `None` when nothing does.

        Raises:
            DeliveryError: signers.json names a signer that does not work.
        """
        address = self._addresses().get(key_name(key))
        if address is not None:
            return _external(address, key)
        return _load_private(self._pem(key), key) if self._is_here(key) else None

    def chosen(self, choice: str, keys: Iterable[Key]) -> Signer:
        """The signer that an operator names: NAME, NAME=ADDRESS, or the path of a PEM file.

        Raises:
            DeliveryError: it is none of `keys`, or cannot sign here.
        """
        by_name = {key_name(key): key for key in keys}
        name, equals, address = choice.partition("=")
        if equals and name in by_name:
            return _external(address, by_name[name])
        if choice in by_name:
            signer = self.signer(by_name[choice])
            if signer is None:
                raise DeliveryError(
                    f"the private key {choice} is not on this machine: give the path of its PEM file, or "
                    f"{choice}=ADDRESS of a signer"
                )
            return signer
        if Path(choice).is_file():
            signer = _load_private(Path(choice))
            for key in by_name.values():
                if key.keyid == signer.public_key.keyid:
                    return _load_private(Path(choice), key)
        raise DeliveryError(f"{choice!r} is none of the keys that can sign what waits: {', '.join(sorted(by_name))}")

    def _pem(self, key: Key) -> Path:
        return self.folder / f"{key_name(key)}.pem"

    def _is_here(self, key: Key) -> bool:
        path = self._pem(key)
        return (
            _NAME.fullmatch(path.stem) is not None
            and path.exists()
            and _load_private(path).public_key.keyid == key.keyid
        )

    def _addresses(self) -> dict[str, str]:
        path = self.folder / "signers.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise DeliveryError(f"{path}: not JSON: {error}") from None
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise DeliveryError(f'{path}: expected {{"NAME": "ADDRESS"}}, such as {{"reviewer-1": "hsm:2"}}')
        return found


def sign_payload(signer: Signer, payload: bytes) -> Signature:
    """Sign, and check the signature at once: a signer that answers with another key is found here, not by devices."""
    name = key_name(signer.public_key)
    try:
        signature = signer.sign(payload)
        signer.public_key.verify_signature(signature, payload)
    except DeliveryError:
        raise
    except Exception as error:  # signers of every kind raise what they like
        raise DeliveryError(f"key {name}: its signer gave no valid signature: {error}") from error
    return signature


def _external(address: str, key: Key) -> Signer:
    try:
        return Signer.from_priv_key_uri(address, key)
    except Exception as error:  # signers of every kind raise what they like
        raise DeliveryError(f"key {key_name(key)}: signer {address!r} cannot be used: {error}") from error


def _load_private(path: Path, key: Key | None = None) -> CryptoSigner:
    if path.stat().st_mode & 0o077:
        raise DeliveryError(f"{path}: others may read this private key; run `chmod 600` on it")
    try:
        return CryptoSigner(load_pem_private_key(path.read_bytes(), None), key)
    except KeyMismatchError:
        raise DeliveryError(f"{path}: this is another key than the metadata names") from None
    except (ValueError, TypeError) as error:
        raise DeliveryError(f"{path}: not a private key in PEM that can be read: {error}") from None


def _load_public(path: Path) -> Key:
    try:
        return SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
    except ValueError as error:
        raise DeliveryError(f"{path}: not a public key in PEM that can be read: {error}") from None


def _named(key: Key, name: str) -> Key:
    key.unrecognized_fields[_NAME_FIELD] = name
    return key
