"""The review service against strangers, replays and lost webhooks."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from until import PATIENCE, until

from pocketloop.services.webhook import PATH, Promoter, create_app, released_adapter, sign

SECRET = "a secret that MLflow and we know"
NOW = 1_800_000_000


def body(name: str = "functions.released", entity: str = "model_version", action: str = "created") -> bytes:
    event = {"entity": entity, "action": action, "timestamp": "2027-01-15T08:00:00Z", "data": {"name": name}}
    return json.dumps(event).encode()


class Service:
    """The app, its clock, and whom it woke."""

    def __init__(self, folder: Path) -> None:
        self.now = float(NOW)
        self.woken: list[str] = []
        self.folder = folder
        self.restart()

    def restart(self) -> None:
        app = create_app(SECRET, self.woken.append, self.folder / "deliveries.db", lambda: self.now)
        self.client = TestClient(app)

    def post(
        self, content: bytes, delivery: str = "d-1", stamp: str = str(NOW), signature: str | None = None, **extra: str
    ) -> int:
        headers = {
            "X-MLflow-Delivery-Id": delivery,
            "X-MLflow-Timestamp": stamp,
            "X-MLflow-Signature": sign(SECRET, delivery, stamp, content) if signature is None else signature,
        }
        return self.client.post(PATH, content=content, headers=headers | extra).status_code


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    yield Service(tmp_path)


def test_a_released_version_wakes_its_adapter(service: Service) -> None:
    assert service.post(body()) == 204
    assert service.woken == ["functions"]


def test_the_signature_is_the_one_that_mlflow_writes() -> None:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    theirs = _generate_hmac_signature(SECRET, "id", "17", body().decode())
    assert sign(SECRET, "id", "17", body()) == theirs


@pytest.mark.parametrize(
    "signature", ["", "v1,", "v1,AAAA", "nonsense", "v1,é", sign("other", "d-1", str(NOW), body())]
)
def test_a_forged_signature_is_refused(service: Service, signature: str) -> None:
    headers = {"X-MLflow-Delivery-Id": "d-1", "X-MLflow-Timestamp": str(NOW)}
    raw = [(key.encode(), value.encode()) for key, value in headers.items()]
    raw.append((b"x-mlflow-signature", signature.encode()))
    assert service.client.post(PATH, content=body(), headers=raw).status_code == 401
    assert service.woken == []


def test_a_signature_holds_for_its_own_body_delivery_and_time_only(service: Service) -> None:
    mine = sign(SECRET, "d-1", str(NOW), body())
    assert service.post(body("other.released"), signature=mine) == 401
    assert service.post(body(), delivery="d-2", signature=mine) == 401
    assert service.post(body(), stamp=str(NOW + 1), signature=mine) == 401
    assert service.post(body(), delivery="", signature=sign(SECRET, "", str(NOW), body())) == 401
    assert service.client.post(PATH, content=body()).status_code == 401
    assert service.woken == []


@pytest.mark.parametrize("stamp", [str(NOW - 301), str(NOW + 301), "0", "", "-5", "1e9", "²", "now"])
def test_an_old_future_or_unreadable_timestamp_is_refused(service: Service, stamp: str) -> None:
    raw = [
        (b"x-mlflow-delivery-id", b"d-1"),
        (b"x-mlflow-timestamp", stamp.encode()),
        (b"x-mlflow-signature", sign(SECRET, "d-1", stamp, body()).encode()),
    ]
    assert service.client.post(PATH, content=body(), headers=raw).status_code == 401
    assert service.woken == []


def test_a_replayed_delivery_is_refused_also_after_a_restart(service: Service) -> None:
    assert [service.post(body()), service.post(body())] == [204, 409]
    service.restart()
    assert service.post(body()) == 409
    service.now += 299
    assert service.post(body()) == 409
    assert service.woken == ["functions"]
    service.now += 2  # by now its timestamp alone refuses it, and nothing needs to be remembered
    assert service.post(body()) == 401


def test_a_forged_delivery_does_not_use_up_the_id_of_the_true_one(service: Service) -> None:
    assert service.post(body(), signature="v1,AAAA") == 401
    assert service.post(body()) == 204


def test_a_body_without_end_is_cut_off(service: Service) -> None:
    assert service.post(b"x" * (1 << 20 | 1)) == 413


@pytest.mark.parametrize(
    "content",
    [
        body("functions"),
        body("--help.released"),
        body("../x.released"),
        body(".released"),
        body(entity="model_version_tag", action="set"),
        b"[]",
        b"null",
        b"{}",
        b"\xff",
        b'{"entity": "model_version", "action": "created", "data": []}',
    ],
)
def test_any_other_event_is_taken_and_wakes_nobody(service: Service, content: bytes) -> None:
    assert service.post(content) == 204
    assert service.woken == []


@given(st.binary(max_size=200) | st.text().map(body))
def test_whatever_stands_in_a_body_only_a_name_of_an_adapter_comes_out(content: bytes) -> None:
    found = released_adapter(content)
    assert found is None or (found[0].isalpha() and found.replace("-", "").replace("_", "").isalnum())


class Recorder:
    """Promotions as they happened; `gate` holds the first one until it is opened."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.gate = threading.Event()
        self.begun = threading.Event()

    def promote(self, adapter: str) -> None:
        self.begun.set()
        self.gate.wait(PATIENCE)
        if adapter == "broken":
            raise RuntimeError("no key")
        self.done.append(adapter)


def test_waking_twice_while_another_is_promoted_is_waking_once() -> None:
    recorder = Recorder()
    with Promoter(recorder.promote, list, poll=600, report=lambda line: None) as promoter:
        promoter.wake("functions")
        assert recorder.begun.wait(PATIENCE)
        promoter.wake("intent")
        promoter.wake("intent")
        recorder.gate.set()
        until(lambda: len(recorder.done) == 2)
    assert recorder.done == ["functions", "intent"]


def test_a_poll_finds_what_no_webhook_told_and_tries_again_what_failed() -> None:
    recorder, told = Recorder(), list[str]()
    recorder.gate.set()
    with Promoter(recorder.promote, lambda: ["broken", "functions"], poll=0.05, report=told.append):
        until(lambda: len(recorder.done) >= 2)
    assert set(recorder.done) == {"functions"}
    assert any(line.startswith("broken: no key; tried again") for line in told)


def test_a_poll_that_cannot_read_mlflow_is_made_again() -> None:
    answers: list[list[str]] = [["functions"]]
    recorder = Recorder()
    recorder.gate.set()
    asked = 0

    def waiting() -> list[str]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise ConnectionError("away")
        return answers.pop() if answers else []

    with Promoter(recorder.promote, waiting, poll=0.05, report=lambda line: None):
        until(lambda: recorder.done == ["functions"])
