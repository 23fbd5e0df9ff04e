"""Who may do what in the hardened MLflow, over real HTTP."""

import stat
from pathlib import Path
from typing import Any

import pytest
import requests
from sample_candidates import BASE_DIGEST, register_sample
from served_mlflow import Mlflow

from pocketloop.contracts.errors import RegistryError
from pocketloop.contracts.home import Home
from pocketloop.registry.access import password_file, set_up_accounts
from pocketloop.registry.mlflow_store import Candidate
from pocketloop.registry.review import review

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

RELEASED = "functions.released"


@pytest.fixture(scope="module")
def found(mlflow_server: Mlflow, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A candidate that a pipeline on the server's machine registered in the store itself."""
    return register_sample(mlflow_server.home, tmp_path_factory.mktemp("bundle") / "one", "roles")


def copy_of(found: Candidate, **changes: Any) -> dict[str, Any]:
    return {"name": RELEASED, "source": f"models:/functions/{found.version}", "run_id": found.run_id} | changes


def test_a_trainer_gets_403_for_everything_on_released_and_a_reviewer_for_everything_on_candidates(
    mlflow_server: Mlflow, found: Candidate
) -> None:
    def status(user: str, method: str, action: str, **body: Any) -> int:
        codes = {
            mlflow_server.ask(user, method, f"{prefix}/2.0/mlflow/{action}", body).status_code
            for prefix in ("/api", "/ajax-api")
        }
        assert len(codes) == 1 or codes == {200, 400}, (action, codes)
        return min(codes)

    promoted = mlflow_server.ask("bob", "POST", "/api/2.0/mlflow/model-versions/create", copy_of(found))
    version = promoted.json()["model_version"]["version"]
    for user, name, number in (("alice", RELEASED, version), ("bob", "functions", found.version)):
        one = {"name": name, "version": number}
        assert status(user, "POST", "model-versions/create", **copy_of(found, name=name)) == 403
        assert status(user, "POST", "model-versions/set-tag", **one, key="review", value="accepted") == 403
        assert status(user, "DELETE", "model-versions/delete-tag", **one, key="digest") == 403
        assert status(user, "PATCH", "model-versions/update", **one, description="fine") == 403
        assert status(user, "POST", "model-versions/transition-stage", **one, stage="Production") == 403
        assert status(user, "DELETE", "model-versions/delete", **one) == 403
        assert status(user, "POST", "registered-models/alias", **one, alias="champion") == 403
        assert status(user, "DELETE", "registered-models/alias", name=name, alias="champion") == 403
        assert status(user, "POST", "registered-models/set-tag", name=name, key="rejected.1", value="no") == 403
        assert status(user, "DELETE", "registered-models/delete-tag", name=name, key="rejected.1") == 403
        assert status(user, "PATCH", "registered-models/update", name=name, description="mine") == 403
        assert status(user, "POST", "registered-models/rename", name=name, new_name="mine") == 403
        assert status(user, "DELETE", "registered-models/delete", name=name) == 403
    assert status("bob", "POST", "model-versions/set-tag", name=RELEASED, version=version, key="x", value="y") == 200
    assert (
        status("alice", "POST", "model-versions/set-tag", name="functions", version=found.version, key="x", value="y")
        == 200
    )


def test_nobody_gives_themselves_more(mlflow_server: Mlflow, found: Candidate) -> None:
    grant = {"username": "alice", "resource_type": "registered_model", "resource_id": RELEASED, "permission": "EDIT"}
    assert mlflow_server.ask("alice", "POST", "/api/3.0/mlflow/users/permissions/grant", grant).status_code == 403
    roles = mlflow_server.ask("admin", "GET", "/api/3.0/mlflow/roles/list").json()["roles"]
    for role in roles:
        body = {"username": "alice", "role_id": role["id"]}
        assert mlflow_server.ask("alice", "POST", "/api/3.0/mlflow/roles/assign", body).status_code == 403
    user = {"username": "alice", "is_admin": True}
    assert mlflow_server.ask("alice", "PATCH", "/api/2.0/mlflow/users/update-admin", user).status_code == 403
    webhook = {
        "name": "mine",
        "url": "http://127.0.0.1:1/x",
        "events": [{"entity": "MODEL_VERSION", "action": "CREATED"}],
    }
    assert mlflow_server.ask("alice", "POST", "/api/2.0/mlflow/webhooks", webhook).status_code == 403


def test_nobody_but_a_pipeline_makes_a_released_model(mlflow_server: Mlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    create, rename = "/api/2.0/mlflow/registered-models/create", "/ajax-api/2.0/mlflow/registered-models/rename"
    for user in ("alice", "bob"):
        assert mlflow_server.ask(user, "POST", create, {"name": "persona.released"}).status_code == 403
        assert mlflow_server.ask(user, "POST", create, {"name": f"own-{user}"}).status_code == 200
        body = {"name": f"own-{user}", "new_name": "persona.released"}
        assert mlflow_server.ask(user, "POST", rename, body).status_code == 403
    pipeline = mlflow_server.client("pipeline", monkeypatch)
    pipeline.create_registered_model("persona")
    pipeline.create_registered_model("persona.released")
    # Its first change lets the roles follow; from then on the reviewer writes there, and the trainer does not.
    tag = {"name": "persona.released", "key": "a", "value": "b"}
    assert mlflow_server.ask("bob", "POST", "/api/2.0/mlflow/registered-models/set-tag", tag).status_code == 200
    assert mlflow_server.ask("alice", "POST", "/api/2.0/mlflow/registered-models/set-tag", tag).status_code == 403
    tag["name"] = "persona"
    assert mlflow_server.ask("alice", "POST", "/api/2.0/mlflow/registered-models/set-tag", tag).status_code == 200


def test_nobody_reads_without_an_account_and_there_is_no_default_password(mlflow_server: Mlflow) -> None:
    address = f"{mlflow_server.url}/api/2.0/mlflow/registered-models/search"
    assert requests.get(address, timeout=120).status_code == 401
    for password in ("password1234", "admin", "password", ""):
        assert requests.get(address, auth=("admin", password), timeout=120).status_code == 401
    assert mlflow_server.ask("alice", "GET", "/api/2.0/mlflow/registered-models/search").status_code == 200


def test_mlflows_assistant_which_runs_commands_on_the_server_is_shut_for_everybody(mlflow_server: Mlflow) -> None:
    for user in ("alice", "admin"):
        for method in ("GET", "PUT"):
            answer = mlflow_server.ask(user, method, "/ajax-api/3.0/mlflow/assistant/config", {})
            assert (answer.status_code, answer.text) == (403, "the assistant is off")


def test_passwords_are_random_and_only_their_owner_reads_the_files(mlflow_server: Mlflow) -> None:
    files = [f for f in sorted((mlflow_server.home.keys / "mlflow").iterdir()) if not f.name.endswith("-journal")]
    secret = [file for file in files if file.name != "basic_auth.ini"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in secret} == {0o600}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (files[0].parent, mlflow_server.home.keys)} == {0o700}
    passwords = {mlflow_server.password(user) for user in ("admin", "alice", "bob", "pipeline")}
    assert len(passwords) == 4
    assert min(map(len, passwords)) >= 32
    printed = (mlflow_server.home.root / "server.log").read_text(encoding="utf-8")
    assert not any(password in printed for password in passwords)


def test_setting_up_again_changes_nothing_and_a_new_role_replaces_the_old_one(mlflow_server: Mlflow) -> None:
    setup = ("review", "setup", "--url", mlflow_server.url)
    before = mlflow_server.password("alice")
    assert "alice: trainer already" in mlflow_server.run(*setup, "--trainer", "alice", "--reviewer", "bob")
    assert mlflow_server.password("alice") == before
    assert str(password_file(mlflow_server.home, "carol")) in mlflow_server.run(*setup, "--reviewer", "carol")
    assert "carol: trainer, no longer reviewer" in mlflow_server.run(*setup, "--trainer", "carol")
    assert "whoever trains does not review" in mlflow_server.run(
        *setup, "--trainer", "dave", "--reviewer", "dave", status=1
    )
    listed = mlflow_server.run("review", "users", "--url", mlflow_server.url)
    assert "alice" in listed and "trainer" in listed and "pipeline" in listed


def test_setting_up_a_server_that_is_away_or_another_is_an_error(mlflow_server: Mlflow, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="does not answer"):
        set_up_accounts(mlflow_server.home, "http://127.0.0.1:9", [], [])
    with pytest.raises(RegistryError, match="answers 401"):
        set_up_accounts(Home(tmp_path), mlflow_server.url, [], [])


def test_a_review_from_a_terminal_works_for_the_reviewer_alone(
    mlflow_server: Mlflow, found: Candidate, tmp_path: Path
) -> None:
    name = f"functions@{found.version}"
    refused = mlflow_server.run("review", "approve", name, user="alice", status=1)
    assert f"this MLflow account may not approve {name}" in refused
    assert "functions.released@" in mlflow_server.run("review", "approve", name, user="bob")
    reviewed = review(mlflow_server.home, "functions", known_bases=[BASE_DIGEST])
    assert reviewed[-1].approval is not None
    assert "accepted as functions.released@" in mlflow_server.run("review", "list", "functions", user="alice")
    assert "card" in mlflow_server.run("review", "show", name, user="alice")
    turned_down = register_sample(mlflow_server.home, tmp_path / "two", "turned down")
    name = f"functions@{turned_down.version}"
    assert "may not reject" in mlflow_server.run("review", "reject", name, "--reason", "no", user="alice", status=1)
    mlflow_server.run("review", "reject", name, "--reason", "calls [the] wrong contact", user="bob")
    assert "rejected: calls [the] wrong contact" in mlflow_server.run("review", "list", user="bob")
    assert "was rejected" in mlflow_server.run("review", "approve", name, user="bob", status=1)


def test_every_change_leaves_a_line_with_who_and_when_and_no_secret(mlflow_server: Mlflow, found: Candidate) -> None:
    create = "/api/2.0/mlflow/model-versions/create"
    before = len(mlflow_server.audit())
    mlflow_server.ask("alice", "GET", "/api/2.0/mlflow/registered-models/search")
    mlflow_server.ask("alice", "POST", "/api/2.0/mlflow/runs/search", {"experiment_ids": ["0"]})
    assert len(mlflow_server.audit()) == before
    mlflow_server.ask("alice", "POST", create, copy_of(found))
    made = mlflow_server.ask("bob", "POST", create, copy_of(found, tags=[{"key": "note", "value": "private words"}]))
    requests.post(f"{mlflow_server.url}{create}", json=copy_of(found), auth=("bob", "guess"), timeout=120)
    password = {"username": "nobody", "password": "a password of twelve"}
    mlflow_server.ask("alice", "POST", "/api/2.0/mlflow/users/create", password)
    lines = mlflow_server.audit()[before:]
    assert [(line["user"], line["status"]) for line in lines] == [
        ("alice", 403),
        ("bob", 200),
        ("", 401),
        ("alice", 403),
    ]
    done = lines[1]
    assert done | {"ts": ""} == {
        "ts": "",
        "user": "bob",
        "method": "POST",
        "path": create,
        "model": RELEASED,
        "version": made.json()["model_version"]["version"],
        "source": f"models:/functions/{found.version}",
        "status": 200,
    }
    text = mlflow_server.home.audit.read_text(encoding="utf-8")
    assert not any(
        word in text for word in ("private words", "guess", "a password of twelve", mlflow_server.password("bob"))
    )
    assert stat.S_IMODE(mlflow_server.home.audit.stat().st_mode) == 0o600
