"""From the button to promotion: MLflow's own webhook, over HTTP, into the review service; and the poll behind it."""

import threading
from pathlib import Path

import pytest
from sample_candidates import BASE_DIGEST, register_sample
from served_mlflow import Mlflow
from until import PATIENCE

from pocketloop.registry.access import accounts, register_webhook, webhook_secret
from pocketloop.registry.history import write_history
from pocketloop.registry.mlflow_store import client, released_name
from pocketloop.registry.review import approve, review, waiting
from pocketloop.services.running import running
from pocketloop.services.webhook import PATH, Promoter, create_app

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def press(server: Mlflow, version: str) -> None:
    """What the button sends."""
    held = client(server.home).get_model_version("functions", version)
    body = {
        "name": "functions.released",
        "source": f"models:/functions/{version}",
        "run_id": held.run_id,
        "tags": [{"key": key, "value": value} for key, value in held.tags.items()],
    }
    made = server.ask("bob", "POST", "/ajax-api/2.0/mlflow/model-versions/create", body)
    assert made.status_code == 200, made.text


def test_mlflows_own_webhook_wakes_promotion_and_is_registered_once(mlflow_server: Mlflow, tmp_path: Path) -> None:
    home = mlflow_server.home
    found = register_sample(home, tmp_path / "one", "delivered")
    promoted = threading.Event()
    reported: list[str] = []

    def promote(adapter: str) -> None:
        assert adapter == "functions"
        assert review(home, adapter, known_bases=[BASE_DIGEST])[-1].approval is not None
        promoted.set()

    with Promoter(promote, list, poll=3600, report=reported.append) as promoter:
        app = create_app(webhook_secret(home), promoter.wake, accounts(home) / "deliveries.db")
        with running(app) as address:
            for _ in range(2):
                register_webhook(home, mlflow_server.url, address + PATH)
            held = mlflow_server.ask("admin", "GET", "/api/2.0/mlflow/webhooks").json()["webhooks"]
            assert [(webhook["name"], webhook["url"]) for webhook in held] == [("pocketloop-review", address + PATH)]
            press(mlflow_server, found.version)
            assert promoted.wait(PATIENCE), reported
    assert webhook_secret(home) not in (home.root / "mlflow.db").read_bytes().decode("latin-1")


def test_what_nobody_was_told_of_is_found_by_looking(mlflow_server: Mlflow, tmp_path: Path) -> None:
    home = mlflow_server.home
    found = register_sample(home, tmp_path / "one", "lost webhook", adapter="lost")
    assert "lost" not in waiting(home)
    released = approve(home, "lost", found.version)
    assert "lost" in waiting(home)
    review(home, "lost", known_bases=[])
    assert "lost" not in waiting(home)  # refused: nothing to do until somebody promotes by hand
    review(home, "lost", known_bases=[BASE_DIGEST])
    assert "lost" in waiting(home)
    client(home).set_model_version_tag(released_name("lost"), released, "rollout.state", "rolled_back")
    assert "lost" not in waiting(home)
    approve(home, "lost", found.version)
    assert "lost" in waiting(home)  # somebody must look at the copy, and say that it is the same adapter again
    review(home, "lost", known_bases=[BASE_DIGEST])
    assert "lost" not in waiting(home)


def test_the_history_of_a_rollout_stands_on_both_pages_once(mlflow_server: Mlflow, tmp_path: Path) -> None:
    home = mlflow_server.home
    found = register_sample(home, tmp_path / "one", "history", adapter="told")
    released = approve(home, "told", found.version)
    review(home, "told", known_bases=[BASE_DIGEST])
    written = review(home, "told", known_bases=[BASE_DIGEST])[-1].approval
    assert written is not None
    for line in ("started at 1 %", "started at 1 %", "widened\nto 5 %"):
        write_history(home, "told", released, line, at=written.approved)
    stamp = written.approved.strftime("%Y-%m-%d %H:%M")
    expected = f"# card\n\n## Rollout\n\n- {stamp} UTC: started at 1 %\n- {stamp} UTC: widened to 5 %"
    for name, version in (("told", found.version), (released_name("told"), released)):
        assert client(home).get_model_version(name, version).description == expected
    assert review(home, "told", known_bases=[BASE_DIGEST])[-1].approval == written
    assert client(home).get_model_version(released_name("told"), released).description == expected
