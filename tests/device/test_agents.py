"""An adapter with several agents on the phone, and a confidence that was calibrated."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tinymodels import save_tiny_adapter, save_tiny_model

from pocketloop.contracts.delivery import Companion
from pocketloop.contracts.files import sha256_file, write_json
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import CALIBRATION, Calibration
from pocketloop.device.companion import companion_of
from pocketloop.device.router import Router, RouterConfig
from pocketloop.device.runtime import Answer, Runtime, Skill
from pocketloop.device.telemetry import Used
from pocketloop.export.gguf_lora import convert_lora
from pocketloop.export.gguf_model import convert_model

ROLES = {"math": "[AGENT:math] Calculate.", "wellness": "[AGENT:wellness] Listen."}
QUESTION = [{"role": "user", "content": "What is one plus one?"}]


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Runtime, Skill]]:
    root = tmp_path_factory.mktemp("agents")
    model = save_tiny_model(root / "model", "qwen3", layers=2)
    convert_model(model, root / "base.gguf", "F32")
    digest = sha256_file(root / "base.gguf")
    file = root / "universal.gguf"
    convert_lora(save_tiny_adapter(model, root / "universal", seed=3), model, digest, file)
    companion = Companion(adapter="universal", task="chat", roles=ROLES, max_new_tokens=6, probes=[])
    used = Used(adapter="universal", digest=sha256_file(file), base_digest=digest)
    with Runtime(root / "base.gguf", model, base_digest=digest, threads=1) as runtime:
        yield runtime, Skill(used, file, companion)


def test_an_agent_is_asked_with_its_own_system_text(phone: tuple[Runtime, Skill]) -> None:
    runtime, skill = phone
    alone = replace(skill, companion=skill.companion.model_copy(update={"system": ROLES["math"], "roles": {}}))
    assert runtime.answer(QUESTION, skill, role="math").text == runtime.answer(QUESTION, alone).text
    said = {runtime.answer(QUESTION, skill, role=role).text for role in ("math", "wellness", "cook")}
    assert len(said) == 3
    nobody = replace(skill, companion=skill.companion.model_copy(update={"roles": {}}))
    assert runtime.answer(QUESTION, skill, role="cook").text == runtime.answer(QUESTION, nobody).text


def test_the_apps_own_system_turn_follows_the_agents_and_outlives_old_turns(phone: tuple[Runtime, Skill]) -> None:
    runtime, skill = phone
    app = {"role": "system", "content": "Your name is Nova."}
    both = [{"role": "system", "content": f"{ROLES['math']}\nYour name is Nova."}, *QUESTION]
    prompt = runtime._prompt([app, *QUESTION], skill.companion, "math")
    assert prompt == runtime._prompt(both, skill.companion)
    long = [{"role": role, "content": "word " * 300} for role in ("user", "assistant") * 6]
    assert (
        runtime._prompt([app, *long, *QUESTION], skill.companion, "math")[: len(prompt) // 2]
        == prompt[: len(prompt) // 2]
    )


def test_a_temperature_changes_how_sure_an_answer_is_and_not_the_answer(phone: tuple[Runtime, Skill]) -> None:
    runtime, skill = phone

    def at(temperature: float) -> Answer:
        companion = skill.companion.model_copy(update={"temperature": temperature})
        return runtime.answer(QUESTION, replace(skill, companion=companion))

    cold, plain, hot = at(0.5), at(1.0), at(2.0)
    assert cold.text == plain.text == hot.text
    assert cold.confidence > plain.confidence > hot.confidence


def test_the_agent_is_the_one_that_the_intent_names(phone: tuple[Runtime, Skill]) -> None:
    _, skill = phone
    asked: list[tuple[str, str]] = []

    class Said:
        def answer(self, conversation: Any, skill: Skill, on_text: Any = None, *, role: str = "") -> Answer:
            asked.append((skill.companion.adapter, role))
            return Answer("math", 1.0, 1, True, 0.1)

    gateway = replace(skill, companion=Companion(adapter="gateway", task="intent", labels=["math"], probes=[]))
    skills = {"gateway": gateway, "universal": skill}
    config = RouterConfig(intent="gateway", routes={"math": "universal"})
    Router(Said(), skills.get, gateway, config).answer(QUESTION)  # type: ignore[arg-type]
    assert asked == [("gateway", ""), ("universal", "math")]


def test_a_companion_that_says_nothing_new_keeps_the_bytes_that_were_signed() -> None:
    plain = Companion(adapter="functions", task="function_call", probes=[])
    assert {"roles", "temperature"} & plain.model_dump(mode="json").keys() == set()
    new = plain.model_copy(update={"roles": ROLES, "temperature": 1.5})
    assert Companion.model_validate_json(new.model_dump_json(by_alias=True)) == new


def test_a_bundle_says_how_its_adapter_is_asked_and_how_sure_it_is(tmp_path: Path) -> None:
    data = {"sources": [{"kind": "examples", "uri": "demo://math"}]}
    prompt = {"system": "Help.", "roles": ROLES}
    write_json(tmp_path / "recipe.json", Recipe(adapter="u", task="chat", base="tiny", data=data, prompt=prompt))  # type: ignore[arg-type]
    write_json(tmp_path / "probes.json", [])
    companion = companion_of(tmp_path)
    assert (companion.roles, companion.system, companion.temperature) == (ROLES, "Help.", 1.0)
    fitted = Calibration(temperature=1.6, fitted=1.6, n=9, heldout=9, error_before=0.2, error_after=0.1)
    write_json(tmp_path / CALIBRATION, fitted)
    write_json(tmp_path / "catalogue.json", {"labels": ["a", "b"]})
    companion = companion_of(tmp_path)
    assert (companion.labels, companion.temperature) == (["a", "b"], 1.6)
