"""The process that runs `.pte` programs, as `pte_env/serve.py` speaks: a frame in, a frame out, and never for ever."""

import json
import select
import struct
import subprocess
import time
from typing import IO, Any

from pocketloop.models.pte_env import PteEnvironment

_LENGTH = struct.Struct("<I")


class PteProcess:
    """`serve.py` in ExecuTorch's environment; what it says beside its replies goes to `log`."""

    def __init__(self, environment: PteEnvironment, log: IO[bytes]) -> None:
        self._process = subprocess.Popen(
            environment.command("serve.py"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,  # or what is waited for may lie in a buffer already
            env=environment.variables(),
        )

    def ask(self, request: dict[str, Any], seconds: float | None = None) -> tuple[dict[str, Any], bytes]:
        """Send a request and wait at most so many `seconds`; (the reply's header, its raw bytes).

        Raises:
            BrokenPipeError, EOFError: the process has died.
            TimeoutError: it took longer.
        """
        assert self._process.stdin
        header = json.dumps(request).encode()
        rest = memoryview(_LENGTH.pack(len(header)) + header)
        while rest:
            rest = rest[self._process.stdin.write(rest) :]
        return self.receive(None if seconds is None else time.monotonic() + seconds)

    def receive(self, until: float | None = None) -> tuple[dict[str, Any], bytes]:
        """The next frame: (its header, its raw bytes). The first one says that the runtime is loaded."""
        size = _LENGTH.unpack(self._read(_LENGTH.size, until))[0]
        header: dict[str, Any] = json.loads(self._read(size, until))
        return header, self._read(header["bytes"], until)

    def _read(self, size: int, until: float | None) -> bytes:
        assert self._process.stdout
        parts: list[bytes] = []
        while size:
            left = None if until is None else max(until - time.monotonic(), 0)
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise TimeoutError
            part = self._process.stdout.read(min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()

    def status(self) -> int:
        """How it ended, once it has: the exit status, or minus the signal."""
        return self._process.wait()

    def end(self, patience_s: float) -> None:
        """Close its input, at which it ends, and end it by force if it does not."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
