"""The commands around the collector's tokens."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pocketloop.cli import collector
from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.home import Home
from pocketloop.services.app_tokens import AppTokens


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    collector.add_to(app)
    app.command("other")(print)
    return app


def test_a_token_is_printed_once_listed_by_name_and_revoked(app: typer.Typer, home: Path) -> None:
    run = CliRunner().invoke
    assert json.loads(run(app, ["collector", "token", "list", "--json"]).stdout) == []
    assert "token add NAME" in run(app, ["collector", "token", "list"]).stdout
    added = run(app, ["collector", "token", "add", "android"])
    token = added.stdout.strip()
    assert AppTokens.of(Home(home)).app_of(token) == "android"
    assert "docs/collector.md" in added.stderr and token not in added.stderr
    (listed,) = json.loads(run(app, ["collector", "token", "list", "--json"]).stdout)
    assert listed["name"] == "android" and token not in json.dumps(listed)
    assert isinstance(run(app, ["collector", "token", "add", "android"]).exception, ConfigError)
    assert "android may post no more" in run(app, ["collector", "token", "revoke", "android"]).stdout
    assert AppTokens.of(Home(home)).app_of(token) is None
