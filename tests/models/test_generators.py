"""What every backend promises, asked of each of them with the same sentences and the same weights."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from tinymodels import ARCHITECTURES, CHATML_TEMPLATE, CORPUS, Architecture, save_tiny_model

from pocketloop.contracts.recipe import BaseConfig
from pocketloop.export.gguf_model import convert_model
from pocketloop.models.answering import answer_all
from pocketloop.models.bases import load_base
from pocketloop.models.chat import load_tokenizer
from pocketloop.models.endpoint import EndpointConfig, EndpointGenerator
from pocketloop.models.generators import TOO_LONG, Generation, Generator, TransformersGenerator
from pocketloop.models.llama_cpp import LlamaCppGenerator
from tests.labeling.judge_servers import JudgeServer, Request, send

CONTEXT = 128
TOKENS = 10
ASKED = [
    [{"role": "user", "content": CORPUS[0]}],
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": CORPUS[1]}],
    [{"role": "user", "content": "São Paulo, für Zoë: 24 °C?"}],
    [
        {"role": "user", "content": CORPUS[2]},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "?"},
    ],
    *([{"role": "user", "content": f"{line} {CORPUS[5]}"}] for line in CORPUS[3:9]),
]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "set_timer", "parameters": {"properties": {"minutes": {"type": "integer"}}}},
    }
]
OVERLONG = [{"role": "user", "content": " ".join(CORPUS)}]
UNTEMPLATED = [{"role": "assistant", "content": "Sunny."}]
TEMPLATE = (
    "{% if messages[0].role == 'assistant' %}{{ raise_exception('nobody asked') }}{% endif %}"
    "{% for tool in tools or [] %}{{ tool.function.name }}"
    "({{ tool.function.parameters.properties.keys() | join(', ') }})\n{% endfor %}" + CHATML_TEMPLATE
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with a template that declares functions, and a stop that ends some answers early."""
    folder = tmp_path_factory.mktemp("contract") / "model"
    save_tiny_model(folder, "qwen3", layers=1)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    plain = transformers(folder)
    prompts = [plain.tokenizer.apply_chat_template(one, add_generation_prompt=True)["input_ids"] for one in ASKED]
    third = plain.generate_ids(prompts, 3)[0][-1]
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"eos_token_id": [plain.tokenizer.eos_token_id, third]}
    path.write_text(json.dumps(settings), encoding="utf-8")
    return folder


def config(folder: Path) -> BaseConfig:
    return BaseConfig(base="tiny", source=str(folder), architecture="qwen3", context=CONTEXT, dtype="float32")


def transformers(folder: Path, batch_size: int = 4) -> TransformersGenerator:
    return TransformersGenerator(*load_base(config(folder)), batch_size=batch_size, context=CONTEXT)


@contextmanager
def llama_cpp(folder: Path, parallel: int = 4) -> Iterator[LlamaCppGenerator]:
    file = folder.parent / "model.gguf"
    if not file.is_file():
        convert_model(folder, file, "F32")
    with LlamaCppGenerator(file, folder, threads=1, parallel=parallel, context=CONTEXT, exact=True) as generator:
        yield generator


@contextmanager
def executorch(folder: Path) -> Iterator[Generator]:
    from pocketloop.export.pte import lower_base
    from pocketloop.models.executorch import ExecuTorchGenerator
    from tests.pte_samples import CACHE, EXACT, environment

    lowered = lower_base(config(folder), EXACT, cache=CACHE, environment=environment())
    with ExecuTorchGenerator(lowered.folder, tokenizer=folder, environment=environment()) as generator:
        yield generator


@contextmanager
def served(folder: Path) -> Iterator[JudgeServer]:
    """llama.cpp behind the protocol: it renders conversations itself, or continues token ids."""
    import threading

    lock = threading.Lock()

    def respond(server: JudgeServer, handler: Any, request: Request, number: int) -> None:
        with lock:
            if "prompt" in request:
                (ids,) = generator.generate_ids([request["prompt"]], request["max_tokens"])
                answer = generator.answer(ids)
            else:
                (answer,) = generator.generate([request["messages"]], request["max_tokens"], request.get("tools"))
        if answer.failure:
            said = "maximum context length exceeded" if answer.failure == TOO_LONG else answer.failure
            return send(handler, 400, json.dumps({"error": {"message": said}}).encode())
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "finish_reason": "stop" if answer.finished else "length"}
        choice |= {"text": answer.text} if "prompt" in request else {"message": message}
        usage = {"prompt_tokens": 1, "completion_tokens": answer.tokens, "total_tokens": 1 + answer.tokens}
        body = {"id": "x", "object": "any", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        send(handler, 200, json.dumps(body).encode())

    with llama_cpp(folder, 1) as generator, JudgeServer(respond) as server:
        yield server


@contextmanager
def endpoint(folder: Path) -> Iterator[Generator]:
    with served(folder) as server:
        yield EndpointGenerator(EndpointConfig(base_url=server.url, model="m", parallel=3))


@contextmanager
def endpoint_by_ids(folder: Path) -> Iterator[Generator]:
    with served(folder) as server:
        settings = EndpointConfig(base_url=server.url, model="m", parallel=3)
        yield EndpointGenerator(settings, tokenizer=load_tokenizer(folder), context=CONTEXT)


BACKENDS: dict[str, Callable[[Path], AbstractContextManager[Generator]]] = {
    "transformers": lambda folder: nullcontext(transformers(folder)),
    "llama.cpp": llama_cpp,
    "executorch": executorch,
    "endpoint": endpoint,
    "endpoint by token ids": endpoint_by_ids,
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name == "executorch")) for name in BACKENDS],
)
def backend(request: pytest.FixtureRequest, model: Path) -> Iterator[Generator]:
    with BACKENDS[request.param](model) as generator:
        yield generator


@pytest.fixture(scope="module")
def expected(model: Path) -> Callable[..., list[Generation]]:
    """Answers of the plainest of them: transformers, one conversation at a time, nothing shared."""
    plain = transformers(model, 1)

    def answers(conversations: Any, tools: Any = None) -> list[Generation]:
        return [plain.generate([one], TOKENS, tools)[0] for one in conversations]

    return answers


def test_answers_are_those_of_a_plain_loop_over_transformers(backend: Generator, expected: Any) -> None:
    wanted = expected(ASKED)
    assert backend.generate(ASKED, TOKENS) == wanted
    assert len({answer.text for answer in wanted}) > 5
    assert {answer.finished for answer in wanted} == {True, False}
    assert all(answer.finished or answer.tokens == TOKENS for answer in wanted)


def test_answers_together_are_the_answers_alone_in_any_order(backend: Generator) -> None:
    together = backend.generate(ASKED, TOKENS)
    assert [backend.generate([one], TOKENS)[0] for one in ASKED] == together
    assert backend.generate(ASKED[::-1], TOKENS) == together[::-1]


def test_declared_functions_are_part_of_the_prompt(backend: Generator, expected: Any) -> None:
    with_tools = backend.generate(ASKED[:4], TOKENS, TOOLS)
    assert with_tools == expected(ASKED[:4], TOOLS)
    assert with_tools != backend.generate(ASKED[:4], TOKENS)


def test_what_prompts_begin_with_alike_changes_no_answer(backend: Generator, expected: Any) -> None:
    """A beginning longer than what is worth computing once."""
    system = {"role": "system", "content": " ".join(CORPUS[:3])}
    asked = [[system, {"role": "user", "content": CORPUS[at][: 6 + at]}] for at in range(3, 9)]
    assert backend.generate(asked, TOKENS) == expected(asked)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_with_padding_share_a_beginning_longer_than_the_sliding_window(
    architecture: Architecture, tmp_path: Path
) -> None:
    save_tiny_model(tmp_path, architecture)
    settings = BaseConfig(base="tiny", source=str(tmp_path), architecture=architecture, dtype="float32")
    batched, alone = (TransformersGenerator(*load_base(settings), batch_size=size) for size in (5, 1))
    common = list(range(270, 345))
    prompts = [[*common, 300 + at, *range(310, 310 + 3 * at % 17)] for at in range(9)] + [[*common, 400, *common, 400]]
    expected = [alone.generate_ids([prompt], 8)[0] for prompt in prompts]
    assert batched.generate_ids(prompts, 8) == expected
    assert batched.generate_ids([*prompts, [5, 6]], 8)[:-1] == expected


def test_a_prompt_that_does_not_fit_fails_alone(backend: Generator) -> None:
    alone = backend.generate(ASKED[:2], TOKENS)
    first, lost, second = backend.generate([ASKED[0], OVERLONG, ASKED[1]], TOKENS)
    assert [first, second] == alone
    assert (lost.failure, lost.text, lost.tokens, lost.finished) == (TOO_LONG, "", 0, False)


def test_a_conversation_that_the_template_refuses_fails_alone(backend: Generator) -> None:
    lost, *rest = backend.generate([UNTEMPLATED, *ASKED[:2]], TOKENS)
    assert lost.failure and lost.text == ""
    assert rest == backend.generate(ASKED[:2], TOKENS)


def test_an_answer_has_at_most_as_many_tokens_as_asked_for(backend: Generator) -> None:
    for most in (1, 2):
        assert all(answer.tokens <= most for answer in backend.generate(ASKED, most))


def test_nothing_asked_is_nothing_answered(backend: Generator) -> None:
    assert backend.generate([], TOKENS) == []


def test_asked_in_portions_it_answers_alike(backend: Generator) -> None:
    assert answer_all(backend, ASKED * 7, TOKENS) == backend.generate(ASKED, TOKENS) * 7
