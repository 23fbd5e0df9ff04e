"""The sides of `benchmarks/training.py`: one training each, timed, with its peak of memory."""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LEARNING_RATE = 2e-3
HELD_OUT = 32
"""Scored in one batch by each side: a mean over all tokens, not a mean of batches' means."""
SCORE_EPOCHS = {"pocketloop": 2.5, "trl": 2.0}
"""Batches of like lengths learn less a step in less time: ours is given more steps, and has to be sooner."""
EVALUATIONS = 4


@dataclass
class Work:
    """What both sides learn from, and how."""

    arguments: argparse.Namespace
    base: Any
    task: Any
    tokenizer: Any
    examples: list[Any]
    held_out: list[Any]
    where: str

    @property
    def cuda(self) -> bool:
        return bool(self.arguments.device == "cuda")

    def clock(self) -> float:
        """Seconds of the device, or of this process's processor time."""
        if not self.cuda:
            return time.process_time()
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    def peak_mb(self) -> float:
        if not self.cuda:
            from pocketloop.training.hardware import process_peak

            return process_peak() / 1e6
        import torch

        return torch.cuda.max_memory_allocated() / 1e6

    def sequences(self, examples: list[Any]) -> list[Any]:
        from pocketloop.training.tokens import SequenceEncoder

        encoder = SequenceEncoder(self.tokenizer, self.task, 512)
        return [sequence for example in examples if (sequence := encoder.encode(example))]


def run_side(arguments: argparse.Namespace) -> dict[str, Any]:
    """The numbers of `--run METHOD/SIDE`; `make` saves random weights instead."""
    if arguments.run == "make":
        make_base(arguments.model_shape, Path(arguments.folder))
        return {}
    method, side = arguments.run.split("/")
    work = prepare(arguments)
    lengths = [len(sequence.input_ids) for sequence in work.sequences(work.examples)]
    result = OURS[method](work) if side == "pocketloop" else THEIRS[method](work, side)
    found = {"where": work.where, "mean_length": sum(lengths) / len(lengths), "tokens": sum(lengths), **result}
    if work.cuda:
        found["mfu"] = utilisation(work, found)
    return found


def prepare(arguments: argparse.Namespace) -> Work:
    from pocketloop.contracts.loading import load_base_config
    from pocketloop.contracts.recipe import BaseConfig
    from pocketloop.data.example_files import read_examples
    from pocketloop.models.chat import load_tokenizer
    from pocketloop.tasks.tasks import TaskSpec

    shared = Path(os.environ.get("POCKETLOOP_SHARED_DATA", ROOT.parent / "shared" / "data")) / "snips" / "train.jsonl"
    wanted = arguments.examples + HELD_OUT
    uri = str(shared) if shared.is_file() else f"demo://functions?split=train&n={wanted}&seed=3"
    examples, _ = read_examples(uri, "function_call")
    base = load_base_config(arguments.base)
    if arguments.folder:
        base = BaseConfig(base=arguments.model_shape, source=arguments.folder, architecture=architecture(arguments))
    where = "SNIPS utterances" if shared.is_file() else "the demo's utterances"
    held_out, learnt = examples[:HELD_OUT], examples[HELD_OUT:wanted]
    return Work(
        arguments=arguments,
        base=base,
        task=TaskSpec("function_call", None),
        tokenizer=load_tokenizer(base.source),
        examples=learnt,
        held_out=held_out,
        where=f"{len(learnt)} {where}",
    )


def architecture(arguments: argparse.Namespace) -> Any:
    from pocketloop.contracts.loading import load_base_config

    return load_base_config(arguments.model_shape).architecture


def make_base(name: str, folder: Path) -> None:
    """Random weights of a published shape, with the embedded base's tokenizer."""
    import torch
    import yaml
    from transformers import AutoConfig, AutoModelForCausalLM

    from pocketloop.contracts.loading import load_base_config
    from pocketloop.models.chat import load_tokenizer

    shape = yaml.safe_load((ROOT / "configs" / "shapes.yaml").read_text(encoding="utf-8"))[name]
    tokenizer = load_tokenizer(load_base_config("tiny").source)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model(**shape, **ends, pad_token_id=tokenizer.pad_token_id)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def pairs_of(work: Work) -> list[Any]:
    """Preference pairs: the right call, and the call of another utterance."""
    from pocketloop.contracts.examples import PreferencePair

    examples = work.examples[: len(work.examples) // 2]
    others = work.examples[len(work.examples) // 2 :]
    return [
        PreferencePair(
            pair_id=example.example_id,
            task="function_call",
            source="benchmark",
            group=example.group,
            prompt=example.prompt,
            chosen=example.answer,
            rejected=other.answer,
            reason="judge",
        )
        for example, other in zip(examples, others, strict=False)
        if example.answer != other.answer
    ]


def ours(work: Work, stage: dict[str, Any], split: Any, held_out: Any, method: str = "lora") -> dict[str, Any]:
    """Our `train_adapter` with one stage, timed from the stage's beginning to its end."""
    from pocketloop.contracts.training import TrainConfig
    from pocketloop.training import run
    from pocketloop.training.progress import Progress
    from pocketloop.training.stage import TrainingData

    name = next(iter(stage))
    shape = {"r": work.arguments.rank, "alpha": 2 * work.arguments.rank, "dropout": 0.0, "method": method}
    schedule = {"batch_size": work.arguments.batch, "learning_rate": LEARNING_RATE, "epochs": 1, **stage[name]}
    training = TrainConfig.model_validate({"lora": shape, "stages": [{name: schedule}]})
    train, times, steps = run.STAGES[name], [0.0, 0.0], [(0, 0.0)]

    def timed(entered: Any) -> Any:
        times[0] = work.clock()
        report = train(entered)
        times[1] = work.clock()
        return report

    def note(progress: Progress) -> None:
        steps.append((progress.step, work.clock() - times[0]))

    run.STAGES[name] = timed
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = TrainingData(split, held_out)
        report = run.train_adapter(
            work.base, data, work.task, training, folder / "adapter", folder / "work", note, every_seconds=0
        )
    curve = report.stages[0].curves.get("validation_loss", [])
    at = dict(steps)
    held = [(next((at[n] for n in range(step, report.steps + 1) if n in at), times[1]), loss) for step, loss in curve]
    return {"seconds": times[1] - times[0], "peak_mb": work.peak_mb(), "held_out": held}


def our_sft(work: Work, method: str = "lora") -> dict[str, Any]:
    from pocketloop.training.stage import Split

    return ours(work, {"sft": {}}, Split(work.examples), Split(), method)


def our_score(work: Work) -> dict[str, Any]:
    from pocketloop.training.stage import Split

    stage = {"sft": {"epochs": SCORE_EPOCHS["pocketloop"], "evaluations": EVALUATIONS}}
    return ours(work, stage, Split(work.examples), Split(work.held_out))


def our_dpo(work: Work) -> dict[str, Any]:
    from pocketloop.training.stage import Split

    pairs = pairs_of(work)
    found = ours(work, {"dpo": {"learning_rate": 1e-4}}, Split(pairs=pairs), Split())
    return {**found, "tokens": pair_tokens(work, pairs)}


def pair_tokens(work: Work, pairs: list[Any]) -> int:
    """Tokens of both answers, each with its prompt: what there is to learn from, however a side arranges it."""
    from pocketloop.training.preference_data import encode_pair
    from pocketloop.training.tokens import SequenceEncoder

    encoder = SequenceEncoder(work.tokenizer, work.task, 512)
    encoded = [encode_pair(encoder, pair) for pair in pairs]
    return sum(len(pair.prompt_ids) + pair.row_length for pair in encoded)


def their_settings(work: Work, side: str, scratch: str) -> dict[str, Any]:
    """trl's defaults, and what a benchmark needs: the same batch, the same length of training, no reports."""
    return {
        "output_dir": scratch,
        "per_device_train_batch_size": work.arguments.batch,
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATE,
        "use_cpu": not work.cuda,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        **({} if side == "trl" else {"gradient_checkpointing": False}),
    }


def their_model(work: Work, side: str, four_bit: bool = False) -> tuple[Any, Any]:
    """(model, peft configuration) as a plain script would have them."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    rank = work.arguments.rank
    if side == "unsloth":
        from unsloth import FastLanguageModel

        model, _ = FastLanguageModel.from_pretrained(str(work.base.source), max_seq_length=512, load_in_4bit=four_bit)
        return FastLanguageModel.get_peft_model(model, r=rank, lora_alpha=2 * rank, lora_dropout=0), None
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    more: dict[str, Any] = {"dtype": torch.bfloat16 if work.cuda else torch.float32}
    if four_bit:
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )  # fmt: skip
        more["device_map"] = {"": 0 if work.cuda else "cpu"}
    return AutoModelForCausalLM.from_pretrained(work.base.source, **more), lora


def their_sft(
    work: Work, side: str, four_bit: bool = False, adjust: Callable[[dict[str, Any]], Any] | None = None
) -> dict[str, Any]:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    model, lora = their_model(work, side, four_bit)
    held: list[tuple[float, float]] = []

    class Notes(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            held.append((work.clock() - began, metrics["eval_loss"]))

    with tempfile.TemporaryDirectory() as scratch:
        settings = their_settings(work, side, scratch)
        evaluated = adjust(settings) if adjust else None
        began = work.clock()
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**settings),
            train_dataset=Dataset.from_list([vars(sequence) for sequence in work.sequences(work.examples)]),
            eval_dataset=Dataset.from_list([vars(s) for s in work.sequences(evaluated)]) if evaluated else None,
            processing_class=work.tokenizer,
            peft_config=lora,
            callbacks=[Notes()],
        )
        trainer.train()
        return {"seconds": work.clock() - began, "peak_mb": work.peak_mb(), "held_out": held}


def their_score(work: Work, side: str) -> dict[str, Any]:
    def adjust(settings: dict[str, Any]) -> list[Any]:
        steps = -(-len(work.examples) // work.arguments.batch)
        settings |= {"num_train_epochs": SCORE_EPOCHS["trl"], "per_device_eval_batch_size": HELD_OUT}
        settings |= {"eval_strategy": "steps", "eval_steps": steps // EVALUATIONS}
        return work.held_out

    return their_sft(work, side, adjust=adjust)


def their_dpo(work: Work, side: str) -> dict[str, Any]:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from pocketloop.models.chat import prompt_text

    pairs = pairs_of(work)
    end = work.tokenizer.convert_ids_to_tokens(work.sequences(work.examples[:1])[0].input_ids[-1])
    rows = []
    for pair in pairs:
        said = [work.task.conversation([*pair.prompt, answer]) for answer in (pair.chosen, pair.rejected)]
        chosen, rejected = (conversation[-1]["content"] + end for conversation in said)
        rows.append({"prompt": prompt_text(work.tokenizer, said[0][:-1]), "chosen": chosen, "rejected": rejected})
    model, lora = their_model(work, side)
    with tempfile.TemporaryDirectory() as scratch:
        settings = {**their_settings(work, side, scratch), "learning_rate": 1e-4}
        began = work.clock()
        trainer = DPOTrainer(
            model=model,
            args=DPOConfig(**settings),
            train_dataset=Dataset.from_list(rows),
            processing_class=work.tokenizer,
            peft_config=lora,
        )
        trainer.train()
        seconds = work.clock() - began
    return {"seconds": seconds, "peak_mb": work.peak_mb(), "tokens": pair_tokens(work, pairs)}


def utilisation(work: Work, found: dict[str, Any]) -> float:
    """Operations that the base and adapter need for these tokens, without any computed again, over the card's peak."""
    from pocketloop.contracts.devices import Devices
    from pocketloop.contracts.loading import load_config
    from pocketloop.contracts.training import LoraConfig
    from pocketloop.training.flops import training_flops
    from pocketloop.training.shape import read_shape

    card = load_config(ROOT / "configs" / "devices.yaml", Devices).devices[work.arguments.card]
    peak = (card.tflops_bf16 or card.tflops_fp32) * 1e12
    lora = LoraConfig(r=work.arguments.rank)
    needed = training_flops(read_shape(work.base), lora, found["tokens"], found["tokens"] / 2, found["mean_length"])
    return needed / found["seconds"] / peak


OURS: dict[str, Callable[[Work], dict[str, Any]]] = {
    "sft": our_sft,
    "dpo": our_dpo,
    "qlora": lambda work: our_sft(work, "qlora"),
    "score": our_score,
}
THEIRS: dict[str, Callable[[Work, str], dict[str, Any]]] = {
    "sft": their_sft,
    "dpo": their_dpo,
    "qlora": lambda work, side: their_sft(work, side, four_bit=True),
    "score": their_score,
}
