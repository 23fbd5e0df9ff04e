"""An MLflow server as `pocketloop ui` starts it, and what each account may do there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow import MlflowClient

from pocketloop.contracts.home import Home
from pocketloop.registry.access import password_file

POCKETLOOP = str(Path(sys.executable).with_name("pocketloop"))


class Mlflow:
    """The server, and what each account sees of it."""

    def __init__(self, home: Home, url: str) -> None:
        self.home, self.url = home, url

    def password(self, user: str) -> str:
        return password_file(self.home, user).read_text(encoding="utf-8")

    def client(self, user: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", self.password(user))
        return MlflowClient(self.url, self.url)

    def ask(self, user: str, method: str, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        return requests.request(
            method, f"{self.url}{path}", json=body, auth=(user, self.password(user)), timeout=120
        )  # fmt: skip

    def run(self, *arguments: str, user: str = "", status: int = 0) -> str:
        """The command line: on this machine's store, or with `user` over HTTP under that name."""
        environment = environment_of(self.home)
        if user:
            named = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": self.password(user)}
            environment |= {"MLFLOW_TRACKING_URI": self.url, **named}
        done = subprocess.run(
            [POCKETLOOP, *arguments], env=environment, capture_output=True, text=True, timeout=1200, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.home.audit.read_text(encoding="utf-8").splitlines()]


def environment_of(home: Home) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return {**kept, "POCKETLOOP_HOME": str(home.root), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
