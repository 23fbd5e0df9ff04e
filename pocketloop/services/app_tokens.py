"""Which apps may post events: each has a token, of which only the sha256 is kept.

A token is 256 random bits, so a plain digest hides it: there is nothing to guess that a slow hash would protect.
"""

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.home import Home

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class AppToken(BaseModel):
    """An app that may post."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: str
    created: datetime


_TOKENS = TypeAdapter(list[AppToken])


class AppTokens:
    """The tokens in the file at `path` (0600); a change by another process counts at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[int, int] | None = None
        self._tokens: list[AppToken] = []

    @classmethod
    def of(cls, home: Home) -> "AppTokens":
        """The home's tokens."""
        return cls(home.keys / "app-tokens.json")

    def add(self, name: str) -> str:
        """Make a token for an app; it is shown this once.

        Raises:
            ConfigError: the name is not plain, or has a token.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"app name {name!r}: up to 64 letters, digits, dots, dashes and underscores")
        with self._writing():
            tokens = self.tokens()
            if any(token.name == name for token in tokens):
                raise ConfigError(f"app {name!r} has a token; revoke it first, or add one under another name")
            secret = f"pl_{secrets.token_urlsafe(32)}"
            self._write([*tokens, AppToken(name=name, sha256=_digest(secret), created=datetime.now(UTC))])
        return secret

    def revoke(self, name: str) -> None:
        """Take an app's token away, also from collectors that run.

        Raises:
            ConfigError: there is none of this name.
        """
        with self._writing():
            tokens = self.tokens()
            left = [token for token in tokens if token.name != name]
            if len(left) == len(tokens):
                known = ", ".join(token.name for token in tokens) or "none"
                raise ConfigError(f"no app {name!r} has a token; there are: {known}")
            self._write(left)

    def tokens(self) -> list[AppToken]:
        """All apps that may post.

        Raises:
            ConfigError: the file is not one of ours.
        """
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            self._read, self._tokens = None, []
            return []
        if self._read != (facts.st_mtime_ns, facts.st_ino):
            try:
                self._tokens = _TOKENS.validate_json(self.path.read_bytes())
            except ValidationError:
                raise ConfigError(
                    f"{self.path}: not a list of app tokens; move it away and add the tokens again"
                ) from None
            self._read = (facts.st_mtime_ns, facts.st_ino)
        return self._tokens

    def app_of(self, secret: str) -> str | None:
        """The app whose token this is; takes as long whichever it is."""
        given = _digest(secret)
        found = None
        for token in self.tokens():
            if hmac.compare_digest(token.sha256, given):
                found = token.name
        return found

    def _writing(self) -> FileLock:
        if not self.path.parent.is_dir():
            self.path.parent.mkdir(parents=True)
            self.path.parent.chmod(0o700)
        return FileLock(self.path.with_name(f".{self.path.name}.lock"))

    def _write(self, tokens: list[AppToken]) -> None:
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".part", dir=self.path.parent)  # 0600
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(_TOKENS.dump_json(tokens, indent=2) + b"\n")
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
