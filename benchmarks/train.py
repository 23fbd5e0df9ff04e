"""Training speed: our trl trainer, a plain loop that does the same arithmetic, and trl as it comes.

    python benchmarks/train.py [--base tiny] [--adapter functions] [--examples 640] [--threads 1] [--batch 16]

All three train the recipe's LoRA on the same examples of the demo for one epoch. Processor seconds are compared, so
that a busy machine does not blur the ratios; loading, tokenizing and the first steps are left out.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_WARM_UP = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--adapter", default="functions")
    parser.add_argument("--examples", type=int, default=640)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)

    from pocketloop.contracts.loading import load_base_config, load_catalogue, load_recipe
    from pocketloop.data.example_files import read_examples
    from pocketloop.models.bases import load_base
    from pocketloop.tasks.tasks import TaskSpec
    from pocketloop.training.tokens import SequenceEncoder

    settings = [f"train.stages.0.sft.batch_size={arguments.batch}", "train.stages.0.sft.epochs=1"]
    recipe = load_recipe(arguments.adapter, settings)
    base = load_base_config(arguments.base)
    task = TaskSpec.of(recipe, load_catalogue(recipe))
    kind = "intents" if recipe.task == "intent" else "functions"
    examples, _ = read_examples(f"demo://{kind}?split=train&n={arguments.examples}&seed=3", recipe.task)
    _, tokenizer = load_base(base)
    encoder = SequenceEncoder(tokenizer, task, recipe.train.stages[0].sft.max_length)
    sequences = [sequence for example in examples if (sequence := encoder.encode(example))]
    tokens = sum(len(sequence.input_ids) for sequence in sequences)
    print(f"{len(sequences)} examples, {tokens / len(sequences):.0f} tokens each, {arguments.threads} thread(s)")
    ours = our_trainer(base, examples, task, recipe.train)
    loop = plain_loop(base, sequences, recipe.train, tokenizer.pad_token_id)
    default = trl_defaults(base, sequences, recipe.train, tokenizer)
    print(f"{'':20s} tokens/cpu-s   against the plain loop")
    for name, speed in (("pocketloop on trl", ours), ("plain loop", loop), ("trl's defaults", default)):
        print(f"{name:20s} {speed:12,.0f}   {speed / loop:6.2f} x")


def our_trainer(base: Any, examples: list[Any], task: Any, training: Any) -> float:
    """Tokens for each processor second of `train_adapter`, from its progress reports."""
    from pocketloop.training.progress import Progress
    from pocketloop.training.run import train_adapter
    from pocketloop.training.stage import Split, TrainingData

    seen: list[tuple[int, int, float]] = []

    def note(progress: Progress) -> None:
        seen.append((progress.step, progress.tokens, time.process_time()))

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = TrainingData(Split(examples))
        train_adapter(base, data, task, training, folder / "adapter", folder / "work", note, every_seconds=0)
    begin = next(entry for entry in seen if entry[0] >= _WARM_UP)
    return (seen[-1][1] - begin[1]) / (seen[-1][2] - begin[2])


def plain_loop(base: Any, sequences: list[Any], training: Any, pad: int) -> float:
    """The same model, precision, loss and optimizer in a bare loop over length-sorted batches."""
    import torch
    from peft.helpers import disable_input_dtype_casting
    from torch.nn.functional import cross_entropy

    from pocketloop.models.bases import load_base
    from pocketloop.training.adapters import new_adapter
    from pocketloop.training.hardware import computes_in_bfloat16

    half = computes_in_bfloat16()
    model, _ = load_base(base, "bfloat16" if half else "float32")
    model.set_attn_implementation("eager")
    model = new_adapter(model, training.lora).train()
    causal = model.get_base_model()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, fused=True)
    tokens, begin = 0, time.process_time()
    with disable_input_dtype_casting(model, active=half):
        for step, (ids, mask, labels) in enumerate(batches(sequences, training.stages[0].sft.batch_size, pad)):
            if step == _WARM_UP:
                tokens, begin = 0, time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                hidden = causal.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                learnt = labels[:, 1:] != -100
                logits = causal.get_output_embeddings()(hidden[:, :-1][learnt]).float()
            cross_entropy(logits, labels[:, 1:][learnt]).backward()
            torch.nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            tokens += int(mask.sum())
    return tokens / (time.process_time() - begin)


def trl_defaults(base: Any, sequences: list[Any], training: Any, tokenizer: Any) -> float:
    """trl's SFTTrainer with nothing set but what a CPU needs."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from pocketloop.models.bases import load_base
    from pocketloop.training.adapters import new_adapter

    seen: list[tuple[int, float]] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen.append((trainer._total_train_tokens, time.process_time()))

    batch = training.stages[0].sft.batch_size
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=new_adapter(load_base(base, "float32")[0], training.lora),
            args=SFTConfig(
                output_dir=scratch,
                per_device_train_batch_size=batch,
                num_train_epochs=1,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                logging_steps=10_000,
            ),
            train_dataset=Dataset.from_list([vars(sequence) for sequence in sequences]),
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        trainer.train()
    begin = seen[_WARM_UP - 1]
    return (seen[-1][0] - begin[0]) / (seen[-1][1] - begin[1])


def batches(sequences: list[Any], size: int, pad: int) -> Iterator[tuple[Any, Any, Any]]:
    """Right-padded ids, masks and labels [batch, longest], in order of length."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ordered = sorted(sequences, key=lambda sequence: -len(sequence.input_ids))
    for start in range(0, len(ordered), size):
        batch = ordered[start : start + size]
        ids = pad_sequence([torch.tensor(s.input_ids) for s in batch], batch_first=True, padding_value=pad)
        labels = pad_sequence([torch.tensor(s.labels) for s in batch], batch_first=True, padding_value=-100)
        mask = pad_sequence([torch.ones(len(s.input_ids), dtype=torch.long) for s in batch], batch_first=True)
        yield ids, mask, labels


if __name__ == "__main__":
    main()
