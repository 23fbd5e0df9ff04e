"""Distillation: the adapter learns from a larger teacher, by its answers or by its distribution.

`sequence` has the teacher answer every training prompt greedily and learns these answers (Kim & Rush, "Sequence-Level
Knowledge Distillation", 2016). `on_policy` has the student answer and pulls its next-token distribution to the
teacher's wherever it went (Agarwal et al., "On-Policy Distillation of Language Models", ICLR 2024); a student that says
nothing sensible yet has nothing to be pulled from, so an `sft` or `sequence` stage belongs before it.
"""

from dataclasses import dataclass, replace
from typing import Any

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Message
from pocketloop.contracts.files import read_jsonl, write_jsonl
from pocketloop.contracts.home import project_root
from pocketloop.contracts.loading import load_base_config
from pocketloop.contracts.reports import StageTraining
from pocketloop.contracts.training import DistillConfig, Schedule, SftConfig
from pocketloop.models.bases import load_base, load_with_adapter
from pocketloop.models.generators import TransformersGenerator
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.on_policy import match_teacher
from pocketloop.training.processes import is_first, wait_for_all
from pocketloop.training.progress import Progress
from pocketloop.training.sft import train_sft
from pocketloop.training.stage import StageRun

_ANSWERED_AT_ONCE = 256


@dataclass(frozen=True)
class Teacher:
    """A frozen model that knows better, with its own tokenizer (the student's vocabulary, its own chat template)."""

    model: Any
    tokenizer: Any


def train_distilled(stage: StageRun) -> StageTraining:
    """Learn from the teacher that `stage.config` names.

    The loss of `sequence` is cross entropy, that of `on_policy` the divergence from the teacher, both in nats per
    answer token; held out, the first is scored on the right answers, the second is measured along them.

    Raises:
        DataError: the teacher gave no answer, or no prompt is left, to train on.
        ModelError: the teacher cannot be loaded, or the loss is no longer a number.
    """
    config = _config(stage)
    if config.mode == "sequence":
        return _learn_answers(stage, config)
    return match_teacher(stage, config, open_teacher(stage).model)


def open_teacher(stage: StageRun) -> Teacher:
    """Load the teacher of a `distill` stage, in the precision that the student computes in.

    Raises:
        ModelError: it is missing.
    """
    config = _config(stage)
    base = load_base_config(config.teacher)
    dtype = "bfloat16" if stage.half else "float32"
    if config.teacher_adapter:
        model, tokenizer = load_with_adapter(base, project_root() / config.teacher_adapter, dtype)
        model = model.merge_and_unload()
    else:
        model, tokenizer = load_base(base, dtype)
    return Teacher(model.requires_grad_(False).eval().to(stage.model.device), tokenizer)


def _config(stage: StageRun) -> DistillConfig:
    assert isinstance(stage.config, DistillConfig)
    return stage.config


def _learn_answers(stage: StageRun, config: DistillConfig) -> StageTraining:
    """Supervised fine-tuning with the teacher's answer as each example's last turn."""
    taught = []
    for example, answer in zip(stage.data.train.examples, _answers(stage, config), strict=True):
        reason = problem(answer, stage.task)
        if reason:
            stage.left_out[reason] = stage.left_out.get(reason, 0) + 1
        else:
            said = Message(role="assistant", content=answer["text"])
            taught.append(example.model_copy(update={"messages": [*example.prompt, said]}))
    if not taught:
        raise DataError(
            f"{stage.key}: none of the teacher's {len(stage.data.train.examples)} answers can be learnt from "
            f"({', '.join(f'{n} {reason}' for reason, n in stage.left_out.items())}); is {config.teacher} with "
            f"teacher_adapter {config.teacher_adapter or 'none'} made for this task, and max_new_tokens enough?"
        )
    data = replace(stage.data, train=replace(stage.data.train, examples=taught))
    schedule = config.model_dump(include=set(Schedule.model_fields))
    return train_sft(replace(stage, data=data, config=SftConfig(**schedule)))


def _answers(stage: StageRun, config: DistillConfig) -> list[dict[str, Any]]:
    """The teacher's greedy answer to each training prompt: {text, finished}. Those of a stopped run are kept."""
    kept = stage.folder / "teacher.jsonl"
    answers = list(read_jsonl(kept)) if kept.is_file() else []
    examples = stage.data.train.examples
    if is_first() and len(answers) < len(examples):
        teacher = open_teacher(stage)
        generator = TransformersGenerator(teacher.model, teacher.tokenizer)
    while is_first() and len(answers) < len(examples):
        batch = examples[len(answers) : len(answers) + _ANSWERED_AT_ONCE]
        prompts = [stage.task.conversation(example.prompt, example.role) for example in batch]
        for answer in generator.generate(prompts, config.max_new_tokens, stage.task.tools):
            answers.append({"text": answer.text, "finished": answer.finished})
        write_jsonl(kept, answers)
        note = f"{stage.key}: the teacher has answered {len(answers)} of {len(examples)} prompts"
        stage.on_progress(Progress(0, 0, 0.0, 0, 0.0, note=note))
    wait_for_all()
    return answers if is_first() else list(read_jsonl(kept))


def problem(answer: dict[str, Any], task: TaskSpec) -> str:
    """Why an answer of the teacher is not learnt from; empty when it is."""
    if not answer["finished"]:
        return "the teacher's answer did not end"
    label = task.label_of(answer["text"])
    if label == "(unreadable)" or (task.name == "function_call" and label == "(no call)"):
        return "the teacher's answer is unreadable"
    if not answer["text"].strip() or (task.catalogue and label == "(unknown label)"):
        return "the teacher's answer is no answer"
    return ""
