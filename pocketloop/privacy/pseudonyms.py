"""Keyed pseudonyms: the same for one person everywhere, unlinkable between people, worthless without the key."""

import hashlib
import hmac
import os
import tempfile
from pathlib import Path

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.home import Home
from pocketloop.privacy.values import clean_text

KEY_BYTES = 32


def load_key(home: Home, name: str = "pseudonyms.key") -> bytes:
    """The home's secret, 32 random bytes in `keys/` (folder 0700, file 0600); made on first use.

    Raises:
        ConfigError: the file is there but is not a key: losing it would silently change every pseudonym.
    """
    path = home.keys / name
    if not path.exists():
        home.keys.mkdir(parents=True, exist_ok=True)
        home.keys.chmod(0o700)
        _create(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"{path} holds {len(key)} bytes instead of {KEY_BYTES}: restore it from a backup, or delete it to start "
            "with new pseudonyms (records scrubbed so far will no longer match)"
        )
    return key


def _create(path: Path) -> None:
    """Write a whole key beside `path` and link it there; a process that was faster wins."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(os.urandom(KEY_BYTES))
            out.flush()
            os.fsync(out.fileno())
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        Path(temporary).unlink()


class Pseudonymizer:
    """HMAC-SHA256 under one key, with a separate domain for each use so that no two uses can be joined."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def _digest(self, *parts: str) -> str:
        message = "\0".join(parts).encode("utf-8", "surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()

    def group(self, device_id: str) -> str:
        """Pseudonym of a device: 16 hex digits after `g-`."""
        return "g-" + self._digest("group", clean_text(device_id))[:16]

    def placeholder(self, device_id: str, kind: str, normalised: str) -> str:
        """`<TYPE_3fa2b1>`: the device salts it, so two people's "Anna" get different ones."""
        return f"<{kind}_{self._digest('value', device_id, kind, normalised)[:6]}>"

    def fingerprint(self, compact: str) -> str:
        """128 bits by which a value can be recognised again, in whatever text it turns up, by who has the key."""
        return self._digest("fingerprint", compact)[:32]

    @property
    def key_digest(self) -> str:
        """Tells two keys apart without giving anything of them away."""
        return self._digest("key")[:16]
