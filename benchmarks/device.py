"""The phone's runtime: swapping adapters against reloading the base, and what a router's threshold costs and gives.

    python benchmarks/device.py --bundle FOLDER --base FOLDER [--data demo://intent?split=heldout&n=800&seed=11]

BUNDLE is that of a trained `intent` adapter (its folder in MLflow's artifacts, or `bundle/` as downloaded), BASE the
prepared base that it belongs to. Swaps are measured with two copies of the adapter, as between a router and a skill.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pocketloop.contracts.delivery import Companion
from pocketloop.contracts.files import sha256_file
from pocketloop.data.example_files import read_examples
from pocketloop.device.runtime import Runtime, Skill
from pocketloop.device.telemetry import Used
from pocketloop.export.base import PreparedBase, open_base
from pocketloop.models.llama_cpp import LlamaCppGenerator
from pocketloop.models.probes import load_probes

DATA = "demo://intent?split=heldout&n=800&seed=11"
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", default=DATA)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    base, bundle = open_base(arguments.base), arguments.bundle
    labels = json.loads((bundle / "catalogue.json").read_text(encoding="utf-8"))["labels"]
    companion = Companion(adapter="intent", task="intent", labels=labels, max_new_tokens=16, probes=load_probes(bundle))
    file = bundle / "adapter.gguf"
    used = Used(adapter="intent", digest=sha256_file(file), base_digest=base.manifest.digest)
    swaps(base, file, arguments.rounds)
    thresholds(base, Skill(used, file, companion), arguments.data)


def swaps(base: PreparedBase, file: Path, rounds: int) -> None:
    """Milliseconds until another adapter is in use, in one runtime and by starting anew."""

    def load() -> None:
        with LlamaCppGenerator(base.quantized, base.tokenizer, base_digest=base.manifest.digest) as generator:
            generator.set_adapter(file)

    def model_only() -> None:
        from pocketloop.models.llama_runtime import library, load_model

        library().llama_model_free(load_model(base.quantized))

    with Runtime(base.quantized, base.tokenizer, base_digest=base.manifest.digest) as runtime:
        conversation = [{"role": "user", "content": "Hello!"}]
        alone = Skill.base_alone(base.manifest.digest)
        runtime.answer(conversation, alone)
        keys = [f"{number:064x}" for number in range(2 * rounds)]
        fresh = iter(keys)
        cold = median(lambda: runtime.use(file, next(fresh)), rounds)
        pair = keys[:2]
        for key in pair:
            runtime.use(file, key)
        turn = iter(pair * rounds)
        warm = median(lambda: runtime.use(file, next(turn)), rounds)
        probing = median(partial(runtime.run_probes, file, Companion(adapter="intent", task="chat", probes=[])), 3)
    reload = median(model_only, max(3, rounds // 4))
    start = median(load, 3)
    size = base.quantized.stat().st_size / 1e6
    print(f"adapter of {file.stat().st_size / 1e6:.2f} MB on a base of {size:.1f} MB, medians")
    print(f"  swap to a loaded adapter      {warm:9.3f} ms      1 x")
    print(f"  swap to one read from disk    {cold:9.3f} ms  {cold / warm:5.0f} x")
    print(f"  reload the base alone (mmap)  {reload:9.3f} ms  {reload / warm:5.0f} x")
    print(f"  new generator with tokenizer  {start:9.3f} ms  {start / warm:5.0f} x")
    print(f"  effect probe of a file        {probing:9.3f} ms")


def thresholds(base: PreparedBase, skill: Skill, data: str) -> None:
    """How many messages stay on the device at each threshold, and how many of those are routed right."""
    examples, _ = read_examples(data, "intent")
    confidence, geometric, right, latency = [], [], [], []
    with Runtime(base.quantized, base.tokenizer, base_digest=base.manifest.digest) as runtime:
        for example in examples:
            asked = [{"role": message.role, "content": message.content} for message in example.prompt]
            answer = runtime.answer(asked, skill)
            confidence.append(answer.confidence)
            geometric.append(answer.confidence ** (1 / max(answer.tokens, 1)))
            right.append(answer.text.strip() == example.answer.content)
            latency.append(answer.latency_ms)
    sure, mean, hit = np.array(confidence), np.array(geometric), np.array(right)
    print(f"\n{len(examples)} held-out messages, accuracy {hit.mean():.3f}, {statistics.median(latency):.1f} ms each")
    print("how well a confidence tells right from wrong (AUROC), and how far it is from the truth (ECE, ten bins)")
    for name, values in (("probability of the label", sure), ("geometric mean per token", mean)):
        print(f"  {name:26} AUROC {auroc(values, hit):.3f}   ECE {calibration_error(values, hit):.3f}")
    print("threshold   on the device   right of those   wrong of all   to the cloud though right")
    for threshold in THRESHOLDS:
        kept = sure >= threshold
        print(
            f"  {threshold:5.2f}        {kept.mean():6.3f}          {hit[kept].mean():6.3f}          "
            f"{(kept & ~hit).mean():6.3f}          {(~kept & hit).mean():6.3f}"
        )


def auroc(values: np.ndarray, hit: np.ndarray) -> float:
    """Chance that a right answer has the higher confidence of the two, for a random right and wrong one."""
    from scipy.stats import rankdata

    ranks, right = rankdata(values), hit.sum()
    return float((ranks[hit].sum() - right * (right + 1) / 2) / (right * (len(hit) - right)))


def calibration_error(values: np.ndarray, hit: np.ndarray) -> float:
    """Mean distance of confidence and accuracy over ten bins, weighted by their sizes."""
    place = np.minimum((values * 10).astype(int), 9)
    bins = [place == number for number in range(10) if (place == number).any()]
    return float(sum(abs(values[chosen].mean() - hit[chosen].mean()) * chosen.mean() for chosen in bins))


def median(work: Callable[[], object], rounds: int) -> float:
    """Median milliseconds of a call."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
