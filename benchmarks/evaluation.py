"""Evaluation speed: the same function calls answered by each backend, by a plain generate loop, and by lm-eval.

    python benchmarks/evaluation.py [--items 1000] [--bundle FOLDER] [--threads 1] [--slow 200] [--tools] [--no-lm-eval]

Every side answers with the embedded base `tiny` (and the adapter of a bundle, if one is named) and is given the same
prompts; `exact` is the share of right calls (`function_exact`). Items per processor second are compared, so that a busy
machine does not blur the ratios; loading is left out on all sides. The loop and lm-eval answer the first `--slow`
items. `--tools` declares all functions in every prompt, which makes the prompts long and alike.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_UNTIL = "<end_of_turn>"


@dataclass
class Side:
    """How many items a side answered, in how much time, and how many of them exactly."""

    name: str
    items: int
    cpu: float
    wall: float
    exact: float

    def line(self, plain: "Side") -> str:
        ratio = (self.items / self.cpu) / (plain.items / plain.cpu)
        return (
            f"{self.name:42s} {self.items:5d} items {self.cpu:7.1f} CPU s {self.wall:7.1f} s  "
            f"{self.items / self.cpu:7.1f} items/CPU s {self.items / self.wall:7.1f} items/s  {ratio:6.2f} x the loop  "
            f"exact {self.exact:.3f}"
        )


@dataclass
class Bench:
    """What is asked of every side."""

    task: Any
    examples: list[Any]
    conversations: list[Any]
    references: list[str]
    tokens: int

    def measure(self, name: str, count: int, answer: Callable[[list[Any]], list[str]]) -> Side:
        asked = self.conversations[:count]
        wall, cpu = time.perf_counter(), time.process_time()
        answers = answer(asked)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return Side(name, len(asked), cpu, wall, self.exact(answers))

    def exact(self, answers: list[str]) -> float:
        pairs = list(zip(answers, self.examples, strict=False))
        return sum(self.task.score(answer, example)["function_exact"] for answer, example in pairs) / len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=200, help="items for the loop and for lm-eval")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle: its adapter is used")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tools", action="store_true", help="declare the functions in every prompt")
    parser.add_argument("--no-lm-eval", action="store_true")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    bench = make_bench(arguments.items, arguments.tools)
    plain = None
    for side in all_sides(bench, arguments):
        plain = plain or side
        print(side.line(plain), flush=True)


def all_sides(bench: Bench, arguments: argparse.Namespace) -> Iterator[Side]:
    yield from transformers_sides(bench, arguments)
    yield llama_side(bench, arguments)
    if not arguments.no_lm_eval:
        yield lm_eval_side(bench, arguments)


def make_bench(items: int, tools: bool) -> Bench:
    from pocketloop.contracts.loading import load_catalogue, load_recipe
    from pocketloop.data.example_files import read_examples
    from pocketloop.tasks.answers import write_answer
    from pocketloop.tasks.tasks import TaskSpec

    recipe = load_recipe("functions", ["prompt.declare_tools=true"] if tools else [])
    task = TaskSpec.of(recipe, load_catalogue(recipe))
    examples, _ = read_examples(f"demo://functions?split=heldout&n={items}&seed=11", "function_call")
    return Bench(
        task,
        examples,
        [task.conversation(example.prompt, example.role) for example in examples],
        [write_answer(example.answer) for example in examples],
        recipe.evaluation.max_new_tokens,
    )


def transformers_sides(bench: Bench, arguments: argparse.Namespace) -> Iterator[Side]:
    import torch

    from pocketloop.models.generators import TransformersGenerator

    torch.set_num_threads(arguments.threads)
    model, tokenizer = load(arguments.bundle)
    generator = TransformersGenerator(model, tokenizer, context=2048)
    stops = sorted(generator.stops)

    def loop(conversations: list[Any]) -> list[str]:
        answers = []
        for conversation in conversations:
            asked = tokenizer.apply_chat_template(
                conversation, tools=bench.task.tools, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            with torch.inference_mode():
                output = model.generate(
                    **asked, max_new_tokens=bench.tokens, do_sample=False, eos_token_id=stops, pad_token_id=0
                )
            answers.append(tokenizer.decode(output[0, asked["input_ids"].shape[1] :], skip_special_tokens=True))
        return answers

    def batched(conversations: list[Any]) -> list[str]:
        return [answer.text for answer in generator.generate(conversations, bench.tokens, bench.task.tools)]

    batched(bench.conversations[:2])
    yield bench.measure("a plain loop over model.generate", arguments.slow, loop)
    yield bench.measure("pocketloop, transformers", arguments.items, batched)


def llama_side(bench: Bench, arguments: argparse.Namespace) -> Side:
    """A whole evaluation of what a phone runs, scored: more than the other sides do."""
    from pocketloop.contracts.home import Home
    from pocketloop.contracts.loading import load_base_config
    from pocketloop.evaluation.suite import run_set
    from pocketloop.export.base import prepare_base
    from pocketloop.models.llama_cpp import LlamaCppGenerator

    base = prepare_base(load_base_config("tiny"), "Q4_K_M", Home().bases)
    adapter = arguments.bundle / "adapter.gguf" if arguments.bundle else None
    with LlamaCppGenerator(base.quantized, base.tokenizer, adapter, threads=arguments.threads) as generator:
        generator.generate(bench.conversations[:1], 2, bench.task.tools)
        wall, cpu = time.perf_counter(), time.process_time()
        result, _ = run_set(generator, bench.examples, bench.task, bench.tokens, "adapter", "heldout")
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    exact = result.metrics["function_exact"].value
    return Side("pocketloop, llama.cpp Q4_K_M, with scoring", arguments.items, cpu, wall, exact)


def lm_eval_side(bench: Bench, arguments: argparse.Namespace) -> Side:
    """lm-eval's own Hugging Face model on the same rendered prompts, in batches, timed by itself."""
    from pocketloop.models.chat import prompt_text
    from pocketloop.models.lm_eval_env import lm_eval_environment

    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        _, tokenizer = load(None)
        rows = [
            {"prompt": prompt_text(tokenizer, conversation, bench.task.tools), "reference": reference}
            for conversation, reference in zip(bench.conversations, bench.references, strict=True)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows[: arguments.slow])
        (work / "items.jsonl").write_text(lines, encoding="utf-8")
        job = {
            "base": str(base_path()),
            "adapter": str(arguments.bundle / "adapter") if arguments.bundle else None,
            "items": str(work / "items.jsonl"),
            "until": _UNTIL,
            "tokens": bench.tokens,
            "threads": arguments.threads,
            "out": str(work / "out.json"),
        }
        (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
        script = Path(__file__).with_name("evaluation_lm_eval.py")
        lm_eval_environment().python([str(script), str(work / "job.json")], work / "log")
        found = json.loads((work / "out.json").read_text(encoding="utf-8"))
    return Side(
        "lm-eval, hf, batches of 32", arguments.slow, found["cpu"], found["wall"], bench.exact(found["answers"])
    )


def base_path() -> Path:
    from pocketloop.contracts.loading import load_base_config
    from pocketloop.models.bases import base_folder

    return base_folder(load_base_config("tiny"))


def load(bundle: Path | None) -> tuple[Any, Any]:
    from pocketloop.contracts.loading import load_base_config
    from pocketloop.models.bases import load_base, load_with_adapter

    config = load_base_config("tiny")
    if bundle is None:
        return load_base(config, "float32")
    return load_with_adapter(config, bundle / "adapter", "float32")


if __name__ == "__main__":
    main()
