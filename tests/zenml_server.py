"""A ZenML server on loopback with a store of its own, and the key of a service account on it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from free_port import free_port
from until import until_served

_PASSWORD = "only-of-this-test"


@dataclass(frozen=True)
class Server:
    """Where it answers, and the key that signs in."""

    url: str
    key: str


@contextmanager
def zenml_server(folder: Path) -> Iterator[Server]:
    """Start it, activate it with an administrator, make a service account; stop it afterwards."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ZENML_")},
        "ZENML_CONFIG_PATH": str(folder),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_LOGGING_VERBOSITY": "ERROR",
        "ZENML_SERVER_AUTO_ACTIVATE": "true",
        "ZENML_DEFAULT_USER_NAME": "administrator",
        "ZENML_DEFAULT_USER_PASSWORD": _PASSWORD,
    }
    command = [sys.executable, "-m", "uvicorn", "zenml.zen_server.zen_server_api:app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--timeout-keep-alive", "600"]
    folder.mkdir(parents=True)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            until_served(f"{url}/health", process)
            yield Server(url, _service_account_key(url))
        finally:
            process.terminate()
            process.wait(timeout=300)


def _service_account_key(url: str) -> str:
    with httpx.Client(base_url=f"{url}/api/v1", timeout=120) as api:
        token = api.post("/login", data={"username": "administrator", "password": _PASSWORD}).json()["access_token"]
        api.headers["Authorization"] = f"Bearer {token}"
        account = api.post("/service_accounts", json={"name": "pipelines", "active": True}).json()["id"]
        made = api.post(f"/service_accounts/{account}/api_keys", json={"name": "containers"})
        return str(made.json()["body"]["key"])
