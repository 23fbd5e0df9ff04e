"""A whole run of the reference app: adapters as a sync left them, answers, telemetry at a real collector."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from tinymodels import CORPUS, save_tiny_adapter, save_tiny_model

from pocketloop.contracts.delivery import AdapterFacts, ChannelPolicy, Companion
from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.files import sha256_file, write_json
from pocketloop.device.chat import Chat, chat_session
from pocketloop.device.errors import DeviceBusy
from pocketloop.device.health import MAX_STARTS
from pocketloop.device.router import RouterConfig
from pocketloop.device.store import Installed, Slot, Store
from pocketloop.export.gguf_lora import convert_lora
from pocketloop.export.gguf_model import convert_model
from pocketloop.services.collector import create_app
from pocketloop.services.running import running

NOW = datetime(2026, 11, 20, tzinfo=UTC)
DIRECT = RouterConfig(intent=None, default="functions")


class Files(NamedTuple):
    model: Path
    base: Path
    digest: str
    adapters: list[Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    root = tmp_path_factory.mktemp("chat")
    model = save_tiny_model(root / "model", "qwen3", layers=2)
    convert_model(model, root / "base.gguf", "F32")
    digest = sha256_file(root / "base.gguf")
    for seed in range(2):
        convert_lora(save_tiny_adapter(model, root / str(seed), seed=seed), model, digest, root / f"{seed}.gguf")
    return Files(model, root / "base.gguf", digest, [root / "0.gguf", root / "1.gguf"])


@pytest.fixture
def device(files: Files, tmp_path: Path) -> Path:
    """A device's folder after a sync: `functions` has an adapter and a previous one, `intent` has none yet."""
    store = Store(tmp_path / "device")
    store.files.mkdir(parents=True)
    installed = []
    for file in files.adapters:
        digest = sha256_file(file)
        store.adapter_path(digest).write_bytes(file.read_bytes())
        companion = Companion(adapter="functions", task="chat", max_new_tokens=6, probes=[])
        write_json(store.companion_path(digest), companion.model_dump(mode="json", by_alias=True))
        facts = AdapterFacts(
            adapter="functions",
            version="1",
            released="1",
            bundle_digest="c" * 64,
            base_digest=files.digest,
            task="chat",
        )
        installed.append(Installed(digest=digest, facts=facts, installed_at=NOW))
    with store.change() as state:
        for name, active, previous in (("functions", *installed), ("intent", None, None)):
            policy = ChannelPolicy(
                adapter=name, base_digest=files.digest, generation=4, stable=active and active.digest, updated=NOW
            )
            state.adapters[name] = Slot(base_digest=files.digest, active=active, previous=previous, policy=policy)
    return store.folder


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("day=*/*.parquet")) for row in pq.ParquetFile(path).read().to_pylist()]


def session(files: Files, device: Path, config: RouterConfig = DIRECT, **options: Any) -> Any:
    return chat_session(device, "phone", files.base, files.model, files.digest, config, threads=1, **options)


@pytest.fixture
def chat(files: Files, device: Path) -> Iterator[Chat]:
    with session(files, device) as made:
        yield made


def test_a_conversation_is_answered_counted_and_posted(files: Files, device: Path, tmp_path: Path) -> None:
    with running(create_app(tmp_path / "collected")) as address:
        url = f"{address}/telemetry"
        with session(files, device, collector=url, app_version="1.4", locale="de-DE") as chat:
            pieces: list[str | None] = []
            first = chat.say(CORPUS[0], pieces.append)
            assert "".join(filter(None, pieces)) == first.text and first.skill == "functions"
            assert chat.rate(up=True)
            assert not chat.rate(up=True)  # one answer, one rating
            chat.say(CORPUS[1])
            assert len(chat._conversation) == 4
            chat.forget()
            assert chat._conversation == [] and not chat.rate(up=False)
    (row,) = rows(tmp_path / "collected")
    assert (row["device_id"], row["app_version"], row["locale"]) == ("phone", "1.4", "de-DE")
    assert (row["adapter"], row["digest"], row["generation"]) == ("functions", sha256_file(files.adapters[0]), 4)
    assert (row["sessions"], row["thumbs_up"], row["crashes"], sum(row["latency"])) == (1, 1, 0, 2)


def test_an_answer_makes_an_adapter_healthy_and_looking_at_it_does_not(files: Files, device: Path) -> None:
    for _ in range(2 * MAX_STARTS):
        with session(files, device) as chat:
            chat.say(CORPUS[0])
    for _ in range(2 * MAX_STARTS):
        with session(files, device):
            pass  # nothing was asked: no adapter was started
    slot = Store(device).read().adapters["functions"]
    assert slot.active and slot.active.digest == sha256_file(files.adapters[0]) and slot.starts == 0


def test_a_crash_loop_takes_the_previous_adapter_back_and_is_reported(
    files: Files, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app dies while the adapter answers, again and again, until the device goes back to the one before."""
    from pocketloop.device import runtime

    bad = sha256_file(files.adapters[0])
    honest = runtime.Runtime.answer

    def answer(self: Any, conversation: Any, skill: Any, *rest: Any, **more: Any) -> Any:
        if skill.used.digest == bad:
            raise RuntimeError("the app is gone")
        return honest(self, conversation, skill, *rest, **more)

    monkeypatch.setattr(runtime.Runtime, "answer", answer)
    with running(create_app(tmp_path / "collected")) as address:
        for _ in range(MAX_STARTS - 1):
            with pytest.raises(RuntimeError), session(files, device, collector=f"{address}/telemetry") as chat:
                chat.say(CORPUS[0])
        with session(files, device, collector=f"{address}/telemetry") as chat:
            assert chat.say(CORPUS[0]).skill == "functions"
    slot = Store(device).read().adapters["functions"]
    assert slot.active and slot.active.digest == sha256_file(files.adapters[1])
    counts = {
        (row["digest"] == bad, name): 0 for row in rows(tmp_path / "collected") for name in ("crashes", "reverts")
    }
    for row in rows(tmp_path / "collected"):
        for name in ("crashes", "reverts"):
            counts[row["digest"] == bad, name] += row[name]
    assert counts == {
        (True, "crashes"): MAX_STARTS - 1,
        (True, "reverts"): 1,
        (False, "crashes"): 0,
        (False, "reverts"): 0,
    }


def test_a_channel_that_serves_the_base_alone_is_still_heard_from(files: Files, device: Path, tmp_path: Path) -> None:
    with running(create_app(tmp_path / "collected")) as address:
        config = RouterConfig(local="functions")
        with session(files, device, config, collector=f"{address}/telemetry") as chat:
            reply = chat.say(CORPUS[0])
            assert reply.low_confidence and reply.skill == "functions" and "the base alone" in reply.why
    found = {row["adapter"]: row for row in rows(tmp_path / "collected")}
    assert (found["intent"]["digest"], found["intent"]["sessions"], found["intent"]["fallbacks"]) == (None, 1, 1)


def test_an_adapter_of_the_base_that_the_phone_had_before_is_not_run(files: Files, device: Path) -> None:
    with Store(device).change() as state:
        state.adapters["functions"].base_digest = "f" * 64
    with session(files, device) as chat:
        reply = chat.say(CORPUS[0])
    assert (reply.skill, reply.low_confidence) == (None, True)


def test_one_app_at_a_time(files: Files, device: Path, chat: Chat) -> None:
    with pytest.raises(DeviceBusy), session(files, device):
        raise AssertionError("not reached")


def test_no_collector_and_no_network_are_no_reason_not_to_answer(files: Files, device: Path) -> None:
    with session(files, device, collector="http://127.0.0.1:1/telemetry") as chat:
        assert chat.say(CORPUS[0]).text


def test_a_base_that_is_absent_is_named(files: Files, device: Path, tmp_path: Path) -> None:
    absent = files._replace(base=tmp_path / "absent.gguf")
    with pytest.raises(ModelError, match=r"absent\.gguf"), session(absent, device):
        raise AssertionError("not reached")
    with session(files, device) as chat:  # and the failed start is nobody's crash
        assert chat.say(CORPUS[0]).text
