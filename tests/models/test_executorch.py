import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.export.pte import LoweredModel, lower_adapter, lower_base
from pocketloop.models import pte_env
from pocketloop.models.answering import answer_all
from pocketloop.models.bases import load_base, load_with_adapter
from pocketloop.models.chat import prompt_text
from pocketloop.models.executorch import ExecuTorchGenerator
from pocketloop.models.generators import CRASHED, TIMED_OUT, TransformersGenerator
from pocketloop.models.pte_process import PteProcess
from tests.pte_samples import CACHE, EXACT, adapters, environment, gemma

ASKED = [
    [{"role": "user", "content": "Set a timer for 10 minutes, please."}],
    [{"role": "user", "content": "Set a timer for 10 hours and add milk, eggs and bread to my shopping list."}],
    [{"role": "user", "content": "What's the weather like in São Paulo on Friday?"}],
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> BaseConfig:
    return gemma(tmp_path_factory.mktemp("models") / "gemma")


@pytest.fixture(scope="module")
def adapter(config: BaseConfig) -> Path:
    return adapters(Path(config.source), Path(config.source).parent)[0]


@pytest.fixture(scope="module")
def base(config: BaseConfig) -> LoweredModel:
    return lower_base(config, EXACT, cache=CACHE, environment=environment())


@pytest.fixture(scope="module")
def adapted(config: BaseConfig, adapter: Path, base: LoweredModel) -> LoweredModel:
    return lower_adapter(config, adapter, base, EXACT, cache=CACHE, environment=environment())


@pytest.fixture(scope="module")
def running(base: LoweredModel) -> Iterator[ExecuTorchGenerator]:
    """The base, run by one process for all tests: starting one takes seconds."""
    with ExecuTorchGenerator(base.folder, environment=environment()) as generator:
        yield generator


@pytest.mark.slow
def test_it_answers_as_transformers_does_and_swaps_adapters_without_a_trace(
    config: BaseConfig, adapter: Path, base: LoweredModel, adapted: LoweredModel
) -> None:
    plain = TransformersGenerator(*load_base(config)).generate(ASKED, 12)
    with_adapter = TransformersGenerator(*load_with_adapter(config, adapter)).generate(ASKED, 12)
    assert plain != with_adapter
    with ExecuTorchGenerator(base.folder, environment=environment()) as generator:
        assert generator.generate(ASKED, 12) == plain
        generator.set_adapter(adapted.folder)
        assert generator.generate(ASKED, 12) == with_adapter
        generator.set_adapter(base.folder)
        assert generator.generate(list(reversed(ASKED)), 12) == list(reversed(plain))
        assert generator.timing["answer_tokens"] == sum(answer.tokens for answer in plain)
        assert generator.sample(ASKED, 12, temperature=1.0, seed=3) == generator.sample(
            ASKED, 12, temperature=1.0, seed=3
        )
    with pytest.raises(ModelError, match="closed"):
        generator.generate(ASKED, 1)


@pytest.mark.slow
def test_a_prompt_computes_only_what_the_one_before_did_not_begin_with(running: ExecuTorchGenerator) -> None:
    first = running.generate_ids([[2, 40, 41, 42, 43, 44]], 2)
    assert running.timing["prompt_tokens"] == 6
    assert running.generate_ids([[2, 40, 41, 42, 43, 44]], 2) == first
    assert running.timing["prompt_tokens"] == 1
    long = [2, *range(40, 70)]  # past the sliding window: the ring may have been written over
    answer = running.generate_ids([long], 2)
    assert running.generate_ids([[*long, 80]], 2) != answer
    assert running.timing["prompt_tokens"] == len(long) + 1


@pytest.mark.slow
def test_the_phones_tokenizer_gives_the_ids_of_transformers(running: ExecuTorchGenerator) -> None:
    for messages in ASKED:
        text = running.tokenizer.apply_chat_template(messages, tokenize=False)
        assert running.tokenize(text) == running.tokenizer(text, add_special_tokens=False)["input_ids"]


RUNNER = """
import sys
from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
import executorch.kernels.quantized, executorch.extension.llm.custom_ops.custom_ops
tokenizer, data, prompt, *programs = sys.argv[1:]
for program in programs:
    runner = TextLLMRunner(program, tokenizer, data)
    said = []
    try:
        runner.generate(prompt, GenerationConfig(echo=False, max_new_tokens=10, temperature=0, num_bos=1), said.append)
    except UnicodeDecodeError:
        pass  # a model drawn at random says a single byte of a longer character, which the runner cannot hand over
    print()
    print("SAID", ascii(said))
"""


@pytest.mark.slow
def test_the_runner_that_apps_embed_says_the_same(
    running: ExecuTorchGenerator, base: LoweredModel, adapted: LoweredModel
) -> None:
    text = prompt_text(running.tokenizer, ASKED[1])
    assert text.startswith("<bos>")
    prompt = running.tokenizer(text, add_special_tokens=False)["input_ids"]
    expected = []
    for lowered in (adapted, base):
        running.set_adapter(lowered.folder)
        expected += running.generate_ids([prompt], 10)
    there = environment()
    files = [base.folder / "tokenizer" / "tokenizer.json", base.data, adapted.program, base.program]
    tokenizer, data, *programs = map(str, files)
    done = subprocess.run(
        [str(there.python), "-P", "-s", "-c", RUNNER, tokenizer, data, text.removeprefix("<bos>"), *programs],
        env=there.variables(),
        capture_output=True,
        text=True,
        check=True,
    )
    said = [line.removeprefix("SAID ") for line in done.stdout.splitlines() if line.startswith("SAID")]
    for ids, pieces in zip(expected, map(ast.literal_eval, said), strict=True):
        assert len(pieces) >= 3
        assert running.tokenizer.decode(ids, skip_special_tokens=True).strip().startswith("".join(pieces).strip())


@pytest.mark.slow
def test_files_that_do_not_belong_together_are_refused(
    running: ExecuTorchGenerator, base: LoweredModel, adapted: LoweredModel, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="without weights"):
        ExecuTorchGenerator(adapted.folder, tokenizer=base.folder / "tokenizer", environment=environment())
    wrong = tmp_path / "base.ptd"
    wrong.write_bytes(base.data.read_bytes() + b"more")
    with pytest.raises(ModelError, match="belongs to the shared weights"):
        ExecuTorchGenerator(adapted.folder, wrong, tokenizer=base.folder / "tokenizer", environment=environment())
    with pytest.raises(ModelError, match="holds no lowered model"):
        ExecuTorchGenerator(tmp_path, environment=environment())
    with pytest.raises(ModelError, match="prompt 0 has 128 tokens"):
        running.generate_ids([[5] * 128], 1)
    with pytest.raises(ModelError, match="holds no lowered model"):
        running.set_adapter(tmp_path)
    assert running.generate_ids([[2, 40, 41]], 1)


@pytest.mark.slow
def test_what_kills_or_stalls_the_runtime_takes_no_other_answer_with_it(
    running: ExecuTorchGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = PteProcess.ask
    alone = running.generate(ASKED, 4)
    doomed = running.tokenizer.apply_chat_template(ASKED[1], add_generation_prompt=True)["input_ids"]

    def crash(self: PteProcess, request: dict[str, Any], seconds: float | None = None) -> Any:
        if doomed in request.get("prompts", []):
            self.kill()
        return ask(self, request, seconds)

    def stall(self: PteProcess, request: dict[str, Any], seconds: float | None = None) -> Any:
        return ask(self, request, 0 if doomed in request.get("prompts", []) else seconds)

    for fault, reason in ((crash, CRASHED), (stall, TIMED_OUT)):
        monkeypatch.setattr(PteProcess, "ask", fault)
        first, lost, last = answer_all(running, ASKED, 4)
        assert lost.failure == reason and [first, last] == [alone[0], alone[2]]


@pytest.mark.slow
def test_a_runtime_that_dies_is_an_error_that_names_the_file(running: ExecuTorchGenerator) -> None:
    assert running._process
    running._process.kill()
    with pytest.raises(ModelError, match=rf"killed by signal 9 on {running.folder}"):
        running.generate_ids([[2, 40, 41]], 1)


def test_an_environment_that_cannot_be_made_says_why_and_does_not_count_as_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = tmp_path / "requirements.in"
    wanted.write_text("torch==0.0.0.dev1\n", encoding="utf-8")
    monkeypatch.setattr(pte_env, "_WANTED", wanted)
    with pytest.raises(ModelError, match=r"could not be made.*install\.log") as caught:
        pte_env.pte_environment(tmp_path)
    assert "torch==0.0.0.dev1" in str(caught.value)
    assert not list(tmp_path.rglob("ready.json"))
