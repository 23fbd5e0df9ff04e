"""One hardened MLflow server for this folder, as `pocketloop ui --hardened` starts it, with its accounts."""

import subprocess
from collections.abc import Iterator

import pytest
from free_port import free_port
from served_mlflow import POCKETLOOP, Mlflow, environment_of
from until import PATIENCE, until_served

from pocketloop.contracts.home import Home


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    home = Home(tmp_path_factory.mktemp("hardened"))
    port = free_port()
    log = home.root / "server.log"
    with open(log, "w", encoding="utf-8") as out:
        server = subprocess.Popen(
            [POCKETLOOP, "ui", "--hardened", "--port", str(port)],
            env=environment_of(home),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        until_served(f"{url}/health", server, log)
        found = Mlflow(home, url)
        found.run("review", "setup", "--url", url, "--trainer", "alice", "--reviewer", "bob")
        yield found
    finally:
        server.terminate()
        server.wait(PATIENCE)
