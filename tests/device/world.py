"""A small repository, a device or many, and whatever a bad network does in between."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from forge import Forge

from pocketloop.contracts.delivery import STABLE, AdapterFacts, ChannelPolicy, Companion, Probe
from pocketloop.contracts.home import Home
from pocketloop.contracts.rollout import DeliveryConfig, ExpiryDays
from pocketloop.delivery.repository import Repository
from pocketloop.device.sync import DeviceConfig
from pocketloop.services.cdn import create_app

BASE = "b" * 64
OTHER_BASE = "d" * 64
NOW = datetime.now(UTC)
WEEK = ExpiryDays(root=7, targets=7, stable=7, channels=7, snapshot=7, timestamp=7)
SIZE = 300_000
Reply = Callable[[Any, Any, Any], Awaitable[None]]


def facts(adapter: str = "functions", **changes: Any) -> AdapterFacts:
    made = {
        "adapter": adapter,
        "version": "3",
        "released": "2",
        "bundle_digest": "c" * 64,
        "base_digest": BASE,
        "task": "function_call",
    }
    return AdapterFacts.model_validate(made | changes)


def companion(adapter: str = "functions", probes: int = 8) -> Companion:
    probe = Probe(prompt="Hello!", prompt_ids=[1, 2], answer_ids=[3, 4])
    return Companion(adapter=adapter, task="function_call", probes=[probe] * probes)


def content(name: str) -> bytes:
    return b"GGUF" + name.encode() * (SIZE // len(name))


class World:
    """A repository made by its publisher with three approved files; what follows is published without its checks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        home = Home(folder)
        repository = Repository.create(DeliveryConfig(expiry_days=WEEK), home)
        for name in ("first", "second", "third"):
            (folder / "adapter.gguf").write_bytes(content(name))
            repository.propose_adapter(folder / "adapter.gguf", companion(), facts())
        repository.sign()
        repository.publish()
        self.a, self.b, self.c = (sha256(content(name)).hexdigest() for name in ("first", "second", "third"))
        self.address = str(home.cdn)
        self.root = repository.root_bytes()
        self.meddler = Meddler(create_app(home.cdn))
        self.forge = Forge.of(home)
        self.generation = 0
        self.serve(self.a)

    def approve(self, name: str, adapter: str = "functions", **changes: Any) -> str:
        digest = self.forge.add_adapter(content(name), facts(adapter, **changes), companion(adapter))
        self.forge.sign(STABLE)
        self.forge.publish()
        return digest

    def revoke(self, digest: str, why: str = "it swears") -> None:
        targets = self.forge.signed(STABLE).targets
        for name in [name for name in targets if digest in name]:
            del targets[name]
        self.forge.signed(STABLE).unrecognized_fields.setdefault("revoked", {})[digest] = why
        self.forge.sign(STABLE)
        self.forge.publish()

    def serve(
        self, stable: str | None, canary: str | None = None, percent: float = 0, adapter: str = "functions", **more: Any
    ) -> ChannelPolicy:
        self.generation += 1
        fields = {"generation": self.generation, "salt": "rollout-1", "base_digest": BASE, "updated": NOW} | more
        policy = ChannelPolicy(
            adapter=adapter, stable=stable, canary=canary, canary_ppm=round(percent * 10_000), **fields
        )
        self.forge.set_policy(policy)
        return policy

    def device(self, name: str = "phone-1", **changes: Any) -> DeviceConfig:
        settings = {"base_digest": BASE, "root": self.root, "reserve": 0, "connect_s": 60.0, "read_s": 60.0}
        settings |= {"folder": self.folder / name, "repository": self.address, "device_id": name}
        return DeviceConfig(**settings | changes)


class Meddler:
    """Serves the repository, but answers paths that contain a fragment as it was told; remembers what was asked."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.rules: list[tuple[str, Reply]] = []
        self.asked: list[tuple[str, str]] = []

    def on(self, fragment: str, reply: Reply) -> None:
        self.rules.append((fragment, reply))

    def paths(self) -> list[str]:
        """Last parts of the paths asked for since the last time."""
        found = [path.rpartition("/")[2] for path, _ in self.asked]
        self.asked.clear()
        return found

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            ranged = dict(scope["headers"]).get(b"range", b"").decode()
            self.asked.append((scope["path"], ranged))
            for fragment, reply in self.rules:
                if fragment in scope["path"]:
                    await reply(scope, receive, send)
                    return
        await self.app(scope, receive, send)


def answer(body: bytes, status: int = 200, kind: str = "application/octet-stream", **headers: str) -> Reply:
    async def reply(scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        fields += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    return reply


def portal() -> Reply:
    return answer(b"\n<!DOCTYPE html><title>Welcome to the hotel</title>", kind="text/html; charset=utf-8")


def cut(app: Any, after: int) -> Reply:
    """The real answer, but the connection ends after so many bytes of its body."""

    async def reply(scope: Any, receive: Any, send: Any) -> None:
        sent = 0

        async def short(message: Any) -> None:
            nonlocal sent
            if message["type"] == "http.response.body":
                body = message.get("body", b"")[: after - sent]
                sent += len(body)
                await send({"type": "http.response.body", "body": body, "more_body": True})
                if sent >= after:
                    raise ConnectionAbortedError
                return
            await send(message)

        await app(scope, receive, short)

    return reply


def endless(first: bytes = b"GGUF") -> Reply:
    async def reply(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(2000):
            await send({"type": "http.response.body", "body": first * 16384, "more_body": True})

    return reply


def silence() -> Reply:
    """Takes the request and says nothing until the client has gone."""

    async def reply(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    return reply
