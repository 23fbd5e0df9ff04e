"""The key of the homes that tests make."""

from pathlib import Path


def fixed_key(home: Path) -> Path:
    """Give a new home the same key in every run, where its owner's would be drawn at random; returns the home."""
    keys = home / "keys"
    keys.mkdir(parents=True, mode=0o700, exist_ok=True)
    path = keys / "pseudonyms.key"
    path.touch(mode=0o600)
    path.write_bytes(b"the same in every run of a test ")
    return home
