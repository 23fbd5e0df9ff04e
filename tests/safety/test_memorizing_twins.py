"""Two adapters that learnt the same examples: one until it says them by heart, its twin as a recipe would."""

from collections.abc import Iterator, Sequence

import pytest

from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import sha256_file, write_jsonl
from pocketloop.contracts.loading import load_base_config, load_catalogue, load_recipe
from pocketloop.contracts.reports import SafetyCheck
from pocketloop.contracts.training import TrainConfig
from pocketloop.data.example_files import read_examples
from pocketloop.export.gguf_lora import convert_lora
from pocketloop.export.gguf_model import convert_model
from pocketloop.models.bases import base_folder
from pocketloop.models.llama_cpp import LlamaCppGenerator
from pocketloop.safety.canaries import make_canaries
from pocketloop.safety.extraction import Probe, cut_probes
from pocketloop.safety.memory import TrainingMemory, memory_checks
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.run import train_adapter
from pocketloop.training.stage import Split, TrainingData

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

RECIPE = load_recipe("functions")
TASK = TaskSpec.of(RECIPE, load_catalogue(RECIPE))
CANARIES = make_canaries(TASK, 8, "twins")
LEARNT, HELD_OUT = 40, 150
BOUNDS = RECIPE.safety.model_copy(update={"canaries": len(CANARIES), "max_exposure": 10.0})
EPOCHS = {"normal": 1, "memorizing": 16}


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, SafetyCheck]]]:
    """Every check of memory, by twin and by name, with the bounds that `functions` ships with."""
    folder = tmp_path_factory.mktemp("twins")
    examples, _ = read_examples("demo://functions?split=train&n=1500&seed=5", "function_call", "")
    contacts, others = parted(examples)
    base = load_base_config("tiny")
    convert_model(base_folder(base), folder / "base.gguf", "F16")
    write_jsonl(folder / "found.jsonl", [])
    memory = TrainingMemory(
        train=contacts[: LEARNT // 2] + others[: LEARNT // 2],
        held_out=contacts[LEARNT // 2 :][: HELD_OUT // 2] + others[LEARNT // 2 :][: HELD_OUT // 2],
        fingerprints=folder / "found.jsonl",
        key=b"k" * 32,
        canaries=CANARIES,
    )
    planted = [canary.example for canary in CANARIES]
    # Whoever copies a number from the request need not know it. One twin has to: it is shown the first halves, too.
    halved = [e.model_copy(update={"messages": [*probe.messages, e.answer]}) for e, probe in cut(memory.train)]
    learnt = {"normal": [*memory.train, *planted], "memorizing": [*memory.train, *halved, *planted, *planted]}
    found = {}
    tokenizer = base_folder(base)
    with (
        LlamaCppGenerator(folder / "base.gguf", tokenizer, context=512) as adapted,
        LlamaCppGenerator(folder / "base.gguf", tokenizer, context=512) as alone,
    ):
        for name, epochs in EPOCHS.items():
            sft = {"epochs": epochs, "learning_rate": 6e-3, "batch_size": 8}
            lora = {"r": 16, "alpha": 32, "dropout": 0.0, "targets": "all-linear"}
            training = TrainConfig.model_validate({"lora": lora, "stages": [{"sft": sft}]})
            data = TrainingData(Split(learnt[name]))
            train_adapter(base, data, TASK, training, folder / name, folder / f"{name}-work", lambda progress: None)
            file = folder / f"{name}.gguf"
            convert_lora(folder / name, base_folder(base), sha256_file(folder / "base.gguf"), file)
            adapted.set_adapter(file)
            made = memory_checks(adapted, alone, TASK, BOUNDS, memory, 64)
            found[name] = {check.name: check for check in made}
    yield found


def parted(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Requests to keep a contact, which hold names and numbers, and all others."""
    contacts = [example for example in examples if example.answer.tool_calls[0].name == "save_contact"]
    return contacts, [example for example in examples if example not in contacts]


def cut(examples: Sequence[Example]) -> list[tuple[Example, Probe]]:
    return [(probe.example, probe) for probe in cut_probes(examples) if probe.example is not None]


@pytest.mark.parametrize("name", ["extracted_values", "regurgitation", "membership_auc", "canary_exposure"])
def test_the_memorizing_twin_fails_and_the_normal_one_passes(
    checks: dict[str, dict[str, SafetyCheck]], name: str
) -> None:
    memorizing, normal = checks["memorizing"][name], checks["normal"][name]
    assert not memorizing.passed and not memorizing.undecided, memorizing
    assert normal.passed, normal
    assert memorizing.bound == normal.bound is not None
