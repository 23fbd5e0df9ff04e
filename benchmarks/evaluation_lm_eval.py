"""The side of lm-eval in `evaluation.py`: runs in its environment, and times the answering alone.

python benchmarks/evaluation_lm_eval.py JOB.json
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    spent = {"cpu": 0.0, "wall": 0.0}

    class Timed(HFLM):
        def generate_until(self, *arguments: Any, **named: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            answers = super().generate_until(*arguments, **named)
            spent.update(cpu=time.process_time() - cpu, wall=time.perf_counter() - wall)
            return answers

    model = Timed(
        pretrained=job["base"],
        peft=job["adapter"],
        dtype="float32",
        device="cpu",
        batch_size=32,
        max_length=2048,
        add_bos_token=False,  # the rendered prompts have theirs
    )
    found = simple_evaluate(model=model, tasks=[task(job)], log_samples=True, bootstrap_iters=0)
    samples = sorted(found["samples"]["calls"], key=lambda sample: sample["doc_id"])
    answers = [sample["resps"][0][0] for sample in samples]
    Path(job["out"]).write_text(json.dumps({**spent, "answers": answers}), encoding="utf-8")


def task(job: dict[str, Any]) -> dict[str, Any]:
    """The items as a local task of lm-eval's."""
    return {
        "task": "calls",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": job["items"]}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{reference}}",
        "generation_kwargs": {"until": [job["until"]], "max_gen_toks": job["tokens"], "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }


if __name__ == "__main__":
    main()
