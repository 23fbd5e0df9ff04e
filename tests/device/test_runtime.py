"""The phone's runtime on real llama.cpp with tiny models: hot swaps, confidences, streaming, golden probes."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tinymodels import CORPUS, save_tiny_adapter, save_tiny_model

from pocketloop.contracts.delivery import Companion, Probe
from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.files import sha256_file
from pocketloop.device import runtime as runtime_module
from pocketloop.device.runtime import PROBED_TOKENS, Runtime, Skill
from pocketloop.device.telemetry import Used
from pocketloop.export.gguf_lora import convert_lora
from pocketloop.export.gguf_model import convert_model
from pocketloop.export.probes import write_adapter_probes
from pocketloop.models.chat import encode_prompt
from pocketloop.models.llama_cpp import LlamaCppGenerator
from pocketloop.models.probes import weigh_answer
from pocketloop.tasks.tasks import TaskSpec


class Files(NamedTuple):
    root: Path
    model: Path
    base: Path
    adapters: list[Path]
    foreign: Path
    idle: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A base, six adapters for it, one for another base, and one that was never trained: its second factor is zero."""
    import torch
    from safetensors.torch import load_file, save_file

    root = tmp_path_factory.mktemp("runtime")
    model = save_tiny_model(root / "model", "gemma3")
    base = root / "base.gguf"
    convert_model(model, base, "F32")
    adapters = []
    for seed in range(6):
        folder = save_tiny_adapter(model, root / f"adapter{seed}", seed=seed)
        convert_lora(folder, model, sha256_file(base), root / f"adapter{seed}.gguf")
        adapters.append(root / f"adapter{seed}.gguf")
    convert_lora(root / "adapter0", model, "f" * 64, root / "foreign.gguf")
    weights = load_file(root / "adapter0" / "adapter_model.safetensors")
    idle = {name: torch.zeros_like(value) if "lora_B" in name else value for name, value in weights.items()}
    save_file(idle, root / "adapter0" / "adapter_model.safetensors", metadata={"format": "pt"})
    convert_lora(root / "adapter0", model, sha256_file(base), root / "idle.gguf")
    return Files(root, model, base, adapters, root / "foreign.gguf", root / "idle.gguf")


@pytest.fixture
def runtime(files: Files) -> Iterator[Runtime]:
    with Runtime(files.base, files.model, threads=1) as made:
        yield made


def skill(files: Files, number: int | None = 0, **companion: Any) -> Skill:
    """The skill of an adapter file."""
    file = None if number is None else files.adapters[number]
    digest = sha256_file(file) if file else None
    described = Companion(adapter="functions", task="chat", **({"probes": [], "max_new_tokens": 12} | companion))
    return Skill(Used(adapter="functions", digest=digest, base_digest=sha256_file(files.base)), file, described)


def ask(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def test_answers_are_those_of_the_generator_that_judged_the_adapter(files: Files, runtime: Runtime) -> None:
    for number in (0, 1, None, 1, 0):
        file = None if number is None else files.adapters[number]
        with LlamaCppGenerator(files.base, files.model, file, threads=1, parallel=1) as generator:
            for text in CORPUS[:3]:
                (expected,) = generator.generate([ask(text)], 12)
                answer = runtime.answer(ask(text), skill(files, number))
                assert (answer.text, answer.tokens, answer.finished) == (
                    expected.text,
                    expected.tokens,
                    expected.finished,
                )


def test_confidence_is_the_probability_of_the_tokens(files: Files, runtime: Runtime) -> None:
    """The oracle recomputes every token's probability from the logits of the whole sequence."""
    with LlamaCppGenerator(files.base, files.model, files.adapters[0], threads=1, parallel=1) as generator:
        prompt = encode_prompt(generator.tokenizer, ask(CORPUS[0]))
        (ids,) = generator.generate_ids([prompt], 12)
        logits = generator.logits([prompt + ids])[0].astype(np.float64)[len(prompt) - 1 : -1]
    log_softmax = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
    log_softmax -= logits.max(1, keepdims=True)
    mean = float(np.mean([row[token] for row, token in zip(log_softmax, ids, strict=True)]))
    assert runtime.answer(ask(CORPUS[0]), skill(files)).confidence == pytest.approx(math.exp(mean), rel=1e-3)


def test_with_labels_it_is_the_probability_of_the_whole_label_and_nothing_for_other_words(
    files: Files, runtime: Runtime
) -> None:
    companion = skill(files).companion
    runtime.use(files.adapters[0], sha256_file(files.adapters[0]))
    said = {text: list(runtime._speaker.speak(runtime._prompt(ask(text), companion), 3)) for text in CORPUS[:9]}
    text = next(text for text, tokens in said.items() if tokens[2][0] not in {tokens[0][0], tokens[1][0]})
    plain = runtime.answer(ask(text), skill(files, max_new_tokens=3))
    other = runtime.answer(ask(text), skill(files, max_new_tokens=3, labels=["weather"]))
    assert (other.text, other.confidence) == (plain.text, 0.0)
    cut = runtime.answer(ask(text), skill(files, max_new_tokens=3, labels=[plain.text.strip()]))
    assert cut.confidence == 0.0  # a label that was not finished is only the beginning of something
    runtime._speaker.stops.add(said[text][2][0])
    label = runtime.answer(ask(text), skill(files, max_new_tokens=3))
    known = runtime.answer(ask(text), skill(files, max_new_tokens=3, labels=[label.text.strip(), "weather"]))
    assert known.finished and known.tokens == 3
    assert known.confidence == pytest.approx(math.exp(sum(log for _, log in said[text])), rel=1e-3)
    assert label.confidence == pytest.approx(known.confidence ** (1 / 3), rel=1e-3)


def test_pieces_make_up_the_answer(files: Files, runtime: Runtime) -> None:
    for number, text in enumerate([*CORPUS[:6], "São Paulo 東京 🙂"]):
        pieces: list[str | None] = []
        answer = runtime.answer(ask(text), skill(files, number % 6, max_new_tokens=24), pieces.append)
        # Random bytes may turn out to be no character: then what was shown is taken back.
        end = len(pieces) - pieces[::-1].index(None) if None in pieces else 0
        assert "".join(filter(None, pieces[end:])) == answer.text
        assert len(pieces) > 3


def test_a_character_of_several_tokens_is_shown_when_it_is_complete(files: Files, runtime: Runtime) -> None:
    speaker = runtime._speaker
    ids = speaker.tokenizer("a🙂b", add_special_tokens=False)["input_ids"]
    shown: list[str | None] = []
    text = ""
    for end in range(1, len(ids) + 1):
        text = runtime_module._show(shown.append, text, speaker.text(ids[:end]))
    assert len(ids) > 3 and "".join(filter(None, shown)) == text == speaker.text(ids, whole=True)
    assert None not in shown and not any("\ufffd" in (piece or "") for piece in shown)


def test_text_that_turns_out_otherwise_is_taken_back() -> None:
    shown: list[str | None] = []
    assert runtime_module._show(shown.append, "hello wor", "hello, world") == "hello, world"
    assert shown == [None, "hello, world"]


def test_an_adapter_is_read_once_and_swapped_from_memory(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    load = runtime_module._Speaker._open
    monkeypatch.setattr(runtime_module._Speaker, "_open", lambda self, file: read.append(file) or load(self, file))
    with Runtime(files.base, files.model, threads=1) as runtime:
        texts = [runtime.answer(ask(CORPUS[0]), skill(files, number)).text for number in (0, 1, 0, 1, None, 0)]
        assert len(read) == 2 and texts[0] == texts[2] == texts[5] != texts[1]
        for number in range(6):  # more than are kept loaded
            runtime.answer(ask(CORPUS[0]), skill(files, number, max_new_tokens=1))
        assert len(runtime._speaker._loaded) == runtime_module._HELD
        assert runtime.answer(ask(CORPUS[0]), skill(files, 0)).text == texts[0]


def test_an_adapter_that_cannot_be_used_leaves_the_old_one_in_use(
    files: Files, runtime: Runtime, tmp_path: Path
) -> None:
    before = runtime.answer(ask(CORPUS[0]), skill(files, 1))
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(files.adapters[0].read_bytes()[:3000])
    for file in (files.foreign, damaged, tmp_path / "absent.gguf"):
        with pytest.raises(ModelError):
            runtime.use(file, "0" * 64)
        assert runtime._speaker.in_use == sha256_file(files.adapters[1])
    after = runtime.answer(ask(CORPUS[0]), skill(files, 1))
    assert after.text == before.text and after.confidence == pytest.approx(before.confidence, rel=1e-3)


def test_old_turns_give_way_to_new_ones(files: Files) -> None:
    with Runtime(files.base, files.model, threads=1, context=128) as runtime:
        turns = [
            {"role": role, "content": f"{CORPUS[turn]} {turn}"} for turn in range(9) for role in ("user", "assistant")
        ]
        companion = skill(files, system="Be brief.").companion
        ids = runtime._prompt([*turns, *ask("the last")], companion)
        text = runtime._speaker.tokenizer.decode(ids)
        assert len(ids) + companion.max_new_tokens <= 128
        assert "Be brief." in text and "the last" in text and f"{CORPUS[0]} 0" not in text
        assert text.count("<start_of_turn>system") == 1 and text.split("<start_of_turn>")[2].startswith("user")
        assert runtime.answer([*turns, *ask("the last")], skill(files)).tokens > 0
        with pytest.raises(ModelError, match="the context holds 128"):
            runtime.answer(ask(" ".join(CORPUS)), skill(files))


def test_the_context_is_never_larger_than_the_base_was_made_for(files: Files) -> None:
    with Runtime(files.base, files.model, threads=1, context=100_000) as runtime:
        assert runtime._speaker.context == 512


def probes(files: Files, number: int) -> list[Probe]:
    """Golden probes as the exporter records them."""
    with LlamaCppGenerator(files.base, files.model, files.adapters[number], threads=1) as generator:
        prompts = [encode_prompt(generator.tokenizer, ask(text)) for text in CORPUS[:5]]
        answers = generator.generate_ids(prompts, 16)
    return [Probe(prompt="", prompt_ids=p, answer_ids=a) for p, a in zip(prompts, answers, strict=True)]


def test_an_adapter_passes_its_own_probes_and_another_does_not(files: Files, runtime: Runtime) -> None:
    own = skill(files, probes=probes(files, 0)).companion
    before = runtime.answer(ask(CORPUS[0]), skill(files, 1))
    assert runtime.run_probes(files.adapters[0], own) == 0
    assert runtime.run_probes(files.adapters[2], own) >= 3
    after = runtime.answer(ask(CORPUS[0]), skill(files, 1))
    assert after.text == before.text and after.confidence == pytest.approx(before.confidence, rel=1e-3)


def test_only_the_first_tokens_of_a_probe_count(files: Files, runtime: Runtime) -> None:
    recorded = probes(files, 0)
    far = [replace_token(probe, PROBED_TOKENS) for probe in recorded]
    near = [replace_token(probe, PROBED_TOKENS - 1) for probe in recorded[:2]] + recorded[2:]
    assert runtime.run_probes(files.adapters[0], skill(files, probes=far).companion) == 0
    assert runtime.run_probes(files.adapters[0], skill(files, probes=near).companion) == 2


def replace_token(probe: Probe, place: int) -> Probe:
    ids = list(probe.answer_ids)
    ids[place] += 1
    return probe.model_copy(update={"answer_ids": ids})


def test_only_tokens_that_are_sure_count(files: Files, runtime: Runtime) -> None:
    wrong = replace_token(probes(files, 0)[0], 3)
    assert runtime.run_probes(files.adapters[0], skill(files, probes=[wrong]).companion) == 1
    unsure = wrong.model_copy(update={"sure": 3})
    assert runtime.run_probes(files.adapters[0], skill(files, probes=[unsure]).companion) == 0


def test_an_adapter_whose_effect_is_too_weak_fails_although_it_says_the_right_words(
    files: Files, runtime: Runtime
) -> None:
    """As after a wrong scale: the best tokens can stay what they are while little is left of what was trained."""
    recorded = probes(files, 0)
    with LlamaCppGenerator(files.base, files.model, files.adapters[0], threads=1) as generator:
        ours = [weigh_answer(generator, probe.prompt_ids, probe.answer_ids[:PROBED_TOKENS]) for probe in recorded]
        generator.set_adapter(None)
        theirs = [weigh_answer(generator, probe.prompt_ids, probe.answer_ids[:PROBED_TOKENS]) for probe in recorded]
    gains = [float(np.mean(np.array(a)[:, 0] - np.array(b)[:, 0])) for a, b in zip(ours, theirs, strict=True)]
    right = [probe.model_copy(update={"gain": gain}) for probe, gain in zip(recorded, gains, strict=True)]
    assert max(gains) > 0.2
    assert runtime.run_probes(files.adapters[0], skill(files, probes=right).companion) == 0
    strong = [
        probe.model_copy(update={"gain": 3 * abs(gain) + 0.1}) for probe, gain in zip(recorded, gains, strict=True)
    ]
    assert runtime.run_probes(files.adapters[0], skill(files, probes=strong).companion) == len(recorded)


def test_an_adapter_at_a_wrong_scale_is_caught(files: Files, runtime: Runtime, tmp_path: Path) -> None:
    import json

    task = TaskSpec("chat", None)
    recorded = write_adapter_probes(tmp_path / "1.json", files.base, files.model, files.adapters[1], task, 1)
    companion = skill(files, 1, probes=recorded).companion
    assert runtime.run_probes(files.adapters[1], companion) == 0
    weak = shutil.copytree(files.root / "adapter1", tmp_path / "weak")
    settings = json.loads((weak / "adapter_config.json").read_text(encoding="utf-8"))
    settings["lora_alpha"] /= 16
    (weak / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    convert_lora(weak, files.model, sha256_file(files.base), tmp_path / "weak.gguf")
    assert runtime.run_probes(tmp_path / "weak.gguf", companion) > len(recorded) // 2


def test_a_prompt_is_shortened_to_the_context_that_the_adapter_was_measured_with(
    files: Files, runtime: Runtime
) -> None:
    turns = [turn for text in CORPUS[:8] for turn in (*ask(text), {"role": "assistant", "content": "Done."})][:-1]
    whole = runtime._prompt(turns, skill(files).companion)
    short = runtime._prompt(turns, skill(files, context=100).companion)
    assert len(short) + 12 <= 100 < len(whole)


def test_an_adapter_that_changes_nothing_fails_every_probe(files: Files, runtime: Runtime) -> None:
    """Even where the probes hold: they were recorded with a base that says the same by itself."""
    with LlamaCppGenerator(files.base, files.model, threads=1) as generator:
        prompts = [encode_prompt(generator.tokenizer, ask(text)) for text in CORPUS[:3]]
        answers = generator.generate_ids(prompts, 16)
    recorded = [Probe(prompt="", prompt_ids=p, answer_ids=a) for p, a in zip(prompts, answers, strict=True)]
    assert runtime.run_probes(files.idle, skill(files, probes=recorded).companion) == 3
    assert runtime.run_probes(files.idle, skill(files).companion) == 1
    assert runtime.run_probes(files.adapters[0], skill(files).companion) == 0


def test_a_file_that_cannot_be_used_fails_with_its_reason(files: Files, runtime: Runtime) -> None:
    before = runtime.answer(ask(CORPUS[0]), skill(files, 1)).text
    with pytest.raises(ModelError, match="belongs to the base"):
        runtime.run_probes(files.foreign, skill(files).companion)
    assert runtime.answer(ask(CORPUS[0]), skill(files, 1)).text == before


def resident() -> int:
    """Bytes of memory that this process holds now."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process its own memory")
def test_ten_thousand_swaps_among_more_adapters_than_are_held_leak_nothing(files: Files, runtime: Runtime) -> None:
    """Every one of six adapters is let go and read again hundreds of times, and the last answer is as the first."""
    names = {sha256_file(file): file for file in files.adapters}
    digests = [*names, None]
    first = runtime.answer(ask("Hello!"), skill(files, 3))
    for turn in range(10_000):
        if turn == 1_000:
            before = resident()
        digest = digests[turn * turn % 7 if turn % 2 else turn % 7]
        runtime.use(names.get(digest or ""), digest)
    assert resident() - before < 16_000_000
    assert runtime.answer(ask("Hello!"), skill(files, 3)).text == first.text


def test_the_base_alone_is_a_skill_too(files: Files, runtime: Runtime) -> None:
    alone = Skill.base_alone(sha256_file(files.base))
    short = replace(alone, companion=alone.companion.model_copy(update={"max_new_tokens": 5}))
    assert runtime.answer(ask(CORPUS[0]), short).tokens == 5
    assert alone.used.digest is None


def test_closing_twice_is_harmless(files: Files) -> None:
    runtime = Runtime(files.base, files.model, threads=1)
    runtime.answer(ask(CORPUS[0]), skill(files))
    runtime.close()
    runtime.close()
    with pytest.raises(ModelError):
        runtime.answer(ask(CORPUS[0]), skill(files))
