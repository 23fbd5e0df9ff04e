"""`pocketloop evaluate`: where the answers may come from, and what is told of those that did not come."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pocketloop.cli.main import app
from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.files import write_json, write_jsonl
from pocketloop.contracts.recipe import Recipe
from pocketloop.models import openai_api
from tests.labeling.judge_servers import JudgeServer, Request, say, send


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    recipe = {
        "adapter": "functions",
        "task": "function_call",
        "base": "tiny",
        "catalogue": "c.json",
        "prompt": {"declare_tools": True},
        "data": {"sources": [{"kind": "events", "skill": "functions"}]},
    }
    write_json(tmp_path / "bundle" / "recipe.json", Recipe.model_validate(recipe))
    function = {"name": "set_timer", "description": "", "parameters": {"type": "object", "properties": {}}}
    write_json(tmp_path / "bundle" / "catalogue.json", {"functions": [function]})
    rows = [{"input": f"{at} minutes", "function": "set_timer", "arguments": {"minutes": at}} for at in range(1, 9)]
    write_jsonl(tmp_path / "mine.jsonl", rows)
    return tmp_path / "bundle"


def served(server: JudgeServer, handler: Any, request: Request, number: int) -> None:
    """Calls what was asked for, but for three requests."""
    minutes = request["messages"][-1]["content"].split()[0]
    call = f'{{"function": "set_timer", "arguments": {{"minutes": {minutes}}}}}'
    if minutes == "3":
        send(handler, 400, b'{"error": {"message": "maximum context length exceeded"}}')
    elif minutes == "4":
        send(handler, 500, b"{}")
    else:
        say(handler, call[:-2] if minutes == "5" else call)


def test_an_address_is_evaluated_and_what_it_did_not_answer_is_counted(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_api, "pause", lambda state: 0.0)
    with JudgeServer(served) as server:
        given = ["evaluate", str(bundle), "--data", str(bundle.parent / "mine.jsonl"), "--on", server.url]
        found = CliRunner().invoke(app, [*given, "--model", "m", "--json"])
        assert found.exit_code == 0, found.output
        shown = CliRunner().invoke(app, [*given, "--model", "m"])
        assert all(request["tools"][0]["function"]["name"] == "set_timer" for request in server.requests)
    told = json.loads(found.stdout)
    assert told["n"] == 8 and told["function_exact"] == 5 / 8
    assert told["failures"] == {"prompt longer than the context": 1, "endpoint failed": 1, "broken JSON": 1}
    assert "1 not answered, and counted as wrong: broken JSON" in shown.output


@pytest.mark.parametrize(
    ("on", "said"), [("nowhere", "the folder of a lowered program"), ("http://127.0.0.1:9/v1", "--model")]
)
def test_what_cannot_answer_is_an_error(bundle: Path, on: str, said: str) -> None:
    found = CliRunner().invoke(app, ["evaluate", str(bundle), "--data", str(bundle.parent / "mine.jsonl"), "--on", on])
    assert isinstance(found.exception, ConfigError) and said in str(found.exception)
