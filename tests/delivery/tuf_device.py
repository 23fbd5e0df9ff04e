"""A device as the TUF client library makes one: the oracle for what the repository publishes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from pocketloop.contracts.delivery import AdapterFacts, ChannelPolicy, Companion, Probe, adapter_target, policy_target
from pocketloop.delivery.storage import Storage

URL = "http://cdn.invalid"


class StorageFetcher(FetcherInterface):
    """Reads the repository's files as a plain web server would serve them."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.asked: list[str] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(f"{URL}/")
        self.asked.append(name)
        try:
            yield self.storage.get(name)
        except FileNotFoundError:
            raise DownloadHTTPError(f"{name} is not there", 404) from None


class Device:
    """Verifies everything from the root that the app ships, and remembers what it saw."""

    def __init__(self, folder: Path, storage: Storage, root: bytes) -> None:
        self.folder = folder
        self.storage = storage
        self.root = root
        (folder / "targets").mkdir(parents=True)

    def updater(self) -> Updater:
        return Updater(
            str(self.folder / "metadata"),
            f"{URL}/metadata/",
            str(self.folder / "targets"),
            f"{URL}/targets/",
            StorageFetcher(self.storage),
            bootstrap=self.root,
        )

    def sync(self, adapter: str, base: str) -> dict[str, Any] | None:
        """Policy of a channel after a whole sync, with every file that it names downloaded; None without a policy."""
        updater = self.updater()
        updater.refresh()
        info = updater.get_targetinfo(policy_target(adapter, base))
        if info is None:
            return None
        policy = ChannelPolicy.model_validate_json(Path(updater.download_target(info)).read_bytes())
        for digest in filter(None, (policy.stable, policy.canary)):
            for path in (adapter_target(adapter, digest), adapter_target(adapter, digest).replace(".gguf", ".json")):
                target = updater.get_targetinfo(path)
                assert target is not None, f"the policy names {path}, which reviewers did not sign"
                updater.download_target(target)
        return json.loads(policy.model_dump_json())


def adapter_facts(base: str, version: str = "1", adapter: str = "functions") -> AdapterFacts:
    return AdapterFacts(
        adapter=adapter,
        version=version,
        released=version,
        bundle_digest="b" * 64,
        base_digest=base,
        task="function_call",
    )


def companion(adapter: str = "functions") -> Companion:
    return Companion(adapter=adapter, task="function_call", probes=[Probe(prompt="Hi", prompt_ids=[1], answer_ids=[2])])
