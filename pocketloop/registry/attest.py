"""Which candidates the pipeline made: it signs what it registers, and a version made by hand has no signature.

The signature (ed25519) is over the adapter's name, the bundle's digest and the card that a reviewer reads. Whoever may
write tags and descriptions in MLflow can change each of them, and not the signature.
"""

import base64
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import RegistryError, ReviewRefused
from pocketloop.contracts.files import canonical_json, sha256_text
from pocketloop.contracts.home import Home
from pocketloop.registry.private_files import keep_secret

ATTESTATION = "attestation"
"""Tag of a candidate: the signature, in base64."""


def attest(home: Home, adapter: str, digest: str, card: str) -> str:
    """Sign a candidate with the pipeline's key, which is made at its first use."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key: Any = load_pem_private_key(keep_secret(_private(home), _new_key), password=None)
    keep_secret(_public(home), lambda: _public_pem(key))
    return base64.b64encode(key.sign(_statement(adapter, digest, card))).decode()


def check_attestation(home: Home, attestation: str, adapter: str, digest: str, card: str) -> None:
    """Accept a candidate that was signed by the pipeline's key.

    Raises:
        ReviewRefused: the signature is missing, another's, or for other files or another card.
        RegistryError: the pipeline's public key is not here.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    path = _public(home)
    if not path.is_file():
        raise RegistryError(
            f"no candidate can be checked here: {path} is absent; copy it from where candidates are made"
        )
    key: Any = load_pem_public_key(path.read_bytes())
    if not attestation:
        raise ReviewRefused("the candidate was not made by the pipeline: it carries no attestation")
    try:
        key.verify(base64.b64decode(attestation), _statement(adapter, digest, card))
    except (InvalidSignature, ValueError):
        raise ReviewRefused(
            "the candidate is not what the pipeline registered: its attestation does not fit its digest and card"
        ) from None


def _statement(adapter: str, digest: str, card: str) -> bytes:
    said = {"schema": "candidate/1", "adapter": adapter, "digest": digest, "card": sha256_text(card.strip())}
    return canonical_json(said).encode()


def _private(home: Home) -> Path:
    return home.keys / "pipeline.pem"


def _public(home: Home) -> Path:
    return home.keys / "pipeline.pub"


def _new_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem
