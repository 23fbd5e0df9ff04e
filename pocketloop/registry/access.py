"""Who may write what in a shared MLflow: its server's secrets, and the accounts of trainers, reviewers and pipelines.

Everything secret lies in `keys/mlflow/` of the project's state, one file each (0600). What each role may do is written
by the server itself (services/mlflow_app.py); here are the people.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import RegistryError
from pocketloop.contracts.files import atomic_file
from pocketloop.contracts.home import Home
from pocketloop.registry.private_files import keep_secret

ADMIN = "admin"
PIPELINE = "pipeline"
"""Account and role of the pipelines: they own the models, and nobody else may create a released one."""
TRAINER = "trainer"
REVIEWER = "reviewer"
WORKSPACE = "default"


def accounts(home: Home) -> Path:
    """The folder of MLflow's secrets."""
    return home.keys / "mlflow"


def password_file(home: Home, user: str) -> Path:
    """Where the first password of an account is kept, until its owner has taken it."""
    return accounts(home) / f"{user}.password"


def webhook_environment(home: Home) -> dict[str, str]:
    """What any MLflow server needs so that it can wake the review service on the same machine."""

    def new_key() -> bytes:
        from cryptography.fernet import Fernet

        return Fernet.generate_key()

    return {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": keep_secret(accounts(home) / "webhooks.key", new_key).decode(),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": "0",  # else a service that has just registered misses events
    }


def hardened_environment(home: Home) -> dict[str, str]:
    """What a server with accounts needs; its first start makes a random password for `admin`: there is no default one.

    Everybody who has an account may read, a route for which MLflow has no rule is closed, and jobs are off.
    """
    folder = accounts(home)
    admin = keep_secret(password_file(home, ADMIN), _new_password).decode()
    (folder / "accounts.db").touch(mode=0o600)
    with atomic_file(folder / "basic_auth.ini") as temporary:
        temporary.write_text(
            "[mlflow]\n"
            "default_permission = READ\n"
            f"database_uri = sqlite:///{folder / 'accounts.db'}\n"
            f"admin_username = {ADMIN}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
            encoding="utf-8",
        )
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": admin,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": keep_secret(folder / "forms.key", _new_password).decode(),
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "POCKETLOOP_HOME": str(home.root),
    }


def set_up_accounts(home: Home, url: str, trainers: Sequence[str], reviewers: Sequence[str]) -> dict[str, str]:
    """Create the accounts that are new, with random passwords in files, and give each its role; repeatable.

    Returns:
        What was done for each account.

    Raises:
        RegistryError: nobody answers at `url`, it is no hardened server of this project, or a name has both roles.
    """
    both = set(trainers) & set(reviewers)
    if both:
        raise RegistryError(f"{', '.join(sorted(both))}: whoever trains does not review; use two accounts")
    server = _Server(home, url)
    roles = {role["name"]: role["id"] for role in server.get("3.0/mlflow/roles/list", workspace=WORKSPACE)["roles"]}
    wanted = {PIPELINE: PIPELINE, **dict.fromkeys(trainers, TRAINER), **dict.fromkeys(reviewers, REVIEWER)}
    if not set(wanted.values()) <= set(roles):
        raise RegistryError(f"{url} has no roles of this project; start it with `pocketloop ui --hardened`")
    known = {user["username"] for user in server.get("2.0/mlflow/users/list")["users"]}
    done = {}
    for user, role in wanted.items():
        done[user] = f"{role} already"
        if user not in known:
            secret = keep_secret(password_file(home, user), _new_password).decode()
            server.post("2.0/mlflow/users/create", username=user, password=secret)
            done[user] = f"new {role}, password in {password_file(home, user)}"
        held = {held["name"] for held in server.get("3.0/mlflow/users/roles/list", username=user)["roles"]}
        for other in {TRAINER, REVIEWER, PIPELINE} & held - {role}:
            server.post("3.0/mlflow/roles/unassign", method="DELETE", username=user, role_id=roles[other])
            done[user] = f"{role}, no longer {other}"
        if role not in held:
            server.post("3.0/mlflow/roles/assign", username=user, role_id=roles[role])
    return done


def list_accounts(home: Home, url: str) -> dict[str, list[str]]:
    """Every account of the server and its roles."""
    server = _Server(home, url)
    users = [user["username"] for user in server.get("2.0/mlflow/users/list")["users"]]
    return {
        user: [
            role["name"]
            for role in server.get("3.0/mlflow/users/roles/list", username=user)["roles"]
            if role["name"] in (TRAINER, REVIEWER, PIPELINE)
        ]
        for user in sorted(users)
    }


def webhook_secret(home: Home) -> str:
    """What MLflow signs its webhooks with."""
    return keep_secret(accounts(home) / "webhook.secret", _new_password).decode()


def register_webhook(home: Home, url: str, address: str) -> None:
    """Let MLflow at `url` post to `address` whenever a version is created, signed with `webhook_secret`.

    Raises:
        RegistryError: MLflow does not answer, or does not let us.
    """
    server = _Server(home, url)
    held = server.get("2.0/mlflow/webhooks", max_results=100).get("webhooks", [])
    given: dict[str, Any] = {
        "name": "pocketloop-review",
        "url": address,
        "events": [{"entity": "MODEL_VERSION", "action": "CREATED"}],
        "secret": webhook_secret(home),
        "status": "ACTIVE",
    }
    mine = [webhook["webhook_id"] for webhook in held if webhook["name"] == given["name"]]
    for webhook in mine:
        server.post(f"2.0/mlflow/webhooks/{webhook}", method="PATCH", **given)
    if not mine:
        server.post("2.0/mlflow/webhooks", **given)


def _new_password() -> bytes:
    return secrets.token_urlsafe(24).encode()


class _Server:
    """What an MLflow server lets only `admin` do."""

    def __init__(self, home: Home, url: str) -> None:
        import requests

        self.url = url.rstrip("/")
        self.session = requests.Session()
        self.stored = password_file(home, ADMIN)
        if self.stored.is_file():  # a server of the local profile asks nobody for a name
            self.session.auth = (ADMIN, self.stored.read_text(encoding="utf-8"))

    def get(self, path: str, **parameters: Any) -> Any:
        return self._ask("GET", path, params=parameters)

    def post(self, path: str, method: str = "POST", **body: Any) -> Any:
        return self._ask(method, path, json=body)

    def _ask(self, method: str, path: str, **given: Any) -> Any:
        import requests

        try:
            answer = self.session.request(method, f"{self.url}/api/{path}", timeout=30, **given)
        except requests.RequestException as error:
            raise RegistryError(f"{self.url} does not answer ({type(error).__name__}); is MLflow running?") from None
        if answer.status_code in (401, 403, 404):
            raise RegistryError(
                f"{self.url} answers {answer.status_code} to {path}: start it with `pocketloop ui --hardened`, "
                f"and run this where {self.stored} lies"
            )
        if not answer.ok:
            raise RegistryError(f"{self.url} refuses {path}: {answer.text[:200]}")
        return answer.json() if answer.content else {}
