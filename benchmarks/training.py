"""Training speed and memory: ours beside a plain trl script with trl's defaults, in one run, as ratios.

    python benchmarks/training.py [sft] [dpo] [qlora] [score] [--examples 384] [--batch 16] [--threads 1]
    python benchmarks/training.py sft qlora --model-shape gemma-3-1b-it --device cuda --card a100

Both sides train the same LoRA of the same base on the same examples, in batches of the same size for one epoch, each
in a process of its own. A process's time counts from its trainer's making to the end of training: tokenizing counts,
and so does DPO's pass over its reference; loading does not. `trl, kept` is trl with gradient checkpointing switched
off, the first thing that somebody who tunes it would do. `score` is the time to the held-out loss that trl ends with
after two epochs; ours gets half an epoch more to be there sooner.

Examples are SNIPS utterances when the folder of public data exists (POCKETLOOP_SHARED_DATA), else the demo's. On a
processor time is processor seconds, so that a busy machine does not blur the ratios; with `--device cuda` it is
seconds, the base has random weights of the named shape, model FLOPs utilisation is against the card's dense bfloat16
peak, and Unsloth stands beside where it is installed.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("sft", "dpo", "qlora", "score")
SIDES = ("pocketloop", "trl", "trl, kept")
BASELINE = "trl"


def main() -> None:
    arguments = parse()
    if arguments.run:
        from training_sides import run_side

        print(json.dumps(run_side(arguments)))
        return
    sides = [*SIDES, *(["unsloth"] if importlib.util.find_spec("unsloth") else [])]
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.model_shape:
            apart(arguments, ["--run", "make", "--folder", scratch])
            arguments.folder = scratch
        for number, method in enumerate(arguments.methods):
            asked = [side for side in sides if not (method == "score" and side == "trl, kept")]
            found = {side: apart(arguments, ["--run", f"{method}/{side}"]) for side in asked}
            if not number:
                heading(found[BASELINE], arguments)
            show_score(found) if method == "score" else show(method, found, arguments)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="of " + ", ".join(METHODS))
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--examples", type=int, default=384)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--model-shape", help="a name of configs/shapes.yaml: random weights of this shape")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--card", default="a100", help="of configs/devices.yaml, for the utilisation")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.methods = arguments.methods or list(METHODS)
    unknown = set(arguments.methods) - set(METHODS)
    if unknown:
        parser.error(f"unknown {', '.join(sorted(unknown))}; known are {', '.join(METHODS)}")
    return arguments


def apart(arguments: argparse.Namespace, more: list[str]) -> dict[str, Any]:
    """One side's numbers, from a process of its own."""
    told = ["--base", arguments.base, "--examples", str(arguments.examples), "--batch", str(arguments.batch)]
    told += ["--rank", str(arguments.rank), "--device", arguments.device, "--card", arguments.card]
    told += ["--model-shape", arguments.model_shape] if arguments.model_shape else []
    told += ["--folder", arguments.folder] if arguments.folder and "--folder" not in more else []
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(arguments.threads),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0") if arguments.device == "cuda" else "",
    }
    done = subprocess.run(
        [sys.executable, __file__, *told, *more], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["without a word"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def heading(found: dict[str, Any], arguments: argparse.Namespace) -> None:
    where = arguments.device if arguments.device == "cuda" else f"{arguments.threads} thread(s)"
    print(
        f"{arguments.model_shape or arguments.base}, {found.get('where', '?')}, "
        f"{found.get('mean_length', 0):.0f} tokens each, batch {arguments.batch}, rank {arguments.rank}, {where}"
    )


def show(method: str, found: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Tokens a second and memory of every side, beside trl's defaults."""
    unit = "tokens/s" if arguments.device == "cuda" else "tokens/cpu-s"
    utilised = "   MFU" if arguments.device == "cuda" else ""
    print(f"\n{method:14s} {unit:>12s}   against {BASELINE}   peak MB   against {BASELINE}{utilised}")
    base = found[BASELINE]
    for side, one in found.items():
        if "failed" in one:
            print(f"{side:14s} failed: {one['failed']}")
            continue
        speed = one["tokens"] / one["seconds"]
        line = f"{side:14s} {speed:12,.0f}"
        if "failed" not in base:
            ratio = speed * base["seconds"] / base["tokens"]
            line += f"   {ratio:9.2f} x   {one['peak_mb']:7,.0f}   {one['peak_mb'] / base['peak_mb']:9.2f} x"
        if utilised:
            line += f"   {one['mfu']:.1%}"
        print(line, flush=True)


def show_score(found: dict[str, dict[str, Any]]) -> None:
    """Seconds until each side first reaches the held-out loss that trl has at its end."""
    failed = {side: one["failed"] for side, one in found.items() if "failed" in one}
    if failed:
        print(f"\nscore: failed: {failed}")
        return
    target = found[BASELINE]["held_out"][-1][1]
    print(f"\nscore: seconds to a held-out loss of {target:.3f} nats a token")
    times = {side: next((at for at, loss in one["held_out"] if loss <= target), None) for side, one in found.items()}
    for side, seconds in times.items():
        reached = (
            "never" if seconds is None else f"{seconds:.1f} s, {seconds / (times[BASELINE] or 1):.2f} x {BASELINE}'s"
        )
        print(f"{side:14s} {reached}; ends at {found[side]['held_out'][-1][1]:.3f}")


if __name__ == "__main__":
    main()
