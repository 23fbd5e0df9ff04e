from pathlib import Path
from typing import Any

import pytest
from tinymodels import ARCHITECTURES, make_tokenizer, save_tiny_model

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.examples import Example, FunctionRow, IntentRow, example_from_row, make_example
from pocketloop.contracts.recipe import Catalogue
from pocketloop.models.chat import encode_prompt, load_tokenizer
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.tokens import IGNORED, SequenceEncoder, end_of_turn

FUNCTIONS = Catalogue(functions=[{"name": "set_timer", "description": "", "parameters": {"type": "object"}}])
CHAT = TaskSpec("chat", None)


def intent(words: str = "Wake me up at half past seven") -> Example:
    return example_from_row(IntentRow(input=words, output="set_alarm"), source="test")


def call() -> Example:
    row = FunctionRow(
        input="Set a timer for 10 minutes", function="set_timer", arguments={"minutes": 10, "name": "Zoë"}
    )
    return example_from_row(row, source="test")


def dialogue() -> Example:
    turns = [
        Message(role="user", content="What's the weather like?"),
        Message(role="assistant", content="Where?"),
        Message(role="user", content="São Paulo"),
        Message(role="assistant", tool_calls=[ToolCall(name="weather", arguments={"city": "São Paulo"})]),
        Message(role="user", content="Thanks"),
        Message(role="assistant", content="You're welcome."),
    ]
    return make_example("chat", turns, source="test")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("task", "example"),
    [
        (TaskSpec("intent", None, system="Name the intent."), intent()),
        (TaskSpec("function_call", FUNCTIONS, declare_tools=True), call()),
        (CHAT, dialogue()),
    ],
    ids=["intent", "function_call", "chat"],
)
def test_training_shows_the_prompt_of_inference_then_the_answer_then_the_end_of_turn(
    tmp_path: Path, architecture: Any, task: TaskSpec, example: Example
) -> None:
    tokenizer = load_tokenizer(save_tiny_model(tmp_path, architecture, layers=1))
    sequence = SequenceEncoder(tokenizer, task, 512).encode(example)
    assert sequence is not None
    conversation = task.conversation(example.messages)
    prompt = encode_prompt(tokenizer, conversation[:-1], task.tools)
    mark = "<end_of_turn>" if architecture == "gemma3" else "<|im_end|>"
    answer = tokenizer(conversation[-1]["content"] + mark, add_special_tokens=False)["input_ids"]
    assert sequence.input_ids == prompt + answer
    assert sequence.labels[len(prompt) :] == answer


def test_only_the_answer_of_a_structured_task_carries_loss() -> None:
    tokenizer = make_tokenizer("gemma")
    sequence = SequenceEncoder(tokenizer, TaskSpec("function_call", FUNCTIONS), 512).encode(call())
    assert sequence is not None
    learnt = [label for label in sequence.labels if label != IGNORED]
    assert tokenizer.decode(learnt) == (
        '{"function": "set_timer", "arguments": {"minutes": 10, "name": "Zoë"}}<end_of_turn>'
    )


def test_a_marked_template_takes_the_loss_on_every_assistant_turn_as_trl_does() -> None:
    tokenizer = make_tokenizer("gemma")
    sequence = SequenceEncoder(tokenizer, CHAT, 512).encode(dialogue())
    assert sequence is not None
    expected = trl_labels(tokenizer, CHAT.conversation(dialogue().messages))
    assert sequence.labels == expected[: len(sequence.labels)]
    assert all(label == IGNORED for label in expected[len(sequence.labels) :])
    assert sum(label == end_of_turn(tokenizer) for label in sequence.labels) == 3


def test_an_unmarked_template_takes_the_loss_on_the_last_turn_alone() -> None:
    tokenizer = make_tokenizer("bytelevel")
    sequence = SequenceEncoder(tokenizer, CHAT, 512).encode(dialogue())
    assert sequence is not None
    assert tokenizer.decode([label for label in sequence.labels if label != IGNORED]) == "You're welcome.<|im_end|>"


def test_a_template_that_rewrites_earlier_turns_takes_the_loss_on_the_last_turn_alone() -> None:
    tokenizer = make_tokenizer("gemma")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ message['content'] }}<end_of_turn>{% end",
        "{% if loop.last %}hm {% endif %}{{ message['content'] }}<end_of_turn>{% end",
    )
    sequence = SequenceEncoder(tokenizer, CHAT, 512).encode(dialogue())
    assert sequence is not None
    assert tokenizer.decode([label for label in sequence.labels if label != IGNORED]) == "You're welcome.<end_of_turn>"


def test_a_long_dialogue_is_cut_after_the_last_whole_answer_that_fits() -> None:
    tokenizer = make_tokenizer("gemma")
    whole = SequenceEncoder(tokenizer, CHAT, 512).encode(dialogue())
    assert whole is not None
    encoder = SequenceEncoder(tokenizer, CHAT, len(whole.input_ids) - 1)
    cut = encoder.encode(dialogue())
    assert cut is not None
    assert encoder.shortened == 1
    assert cut.input_ids == whole.input_ids[: len(cut.input_ids)]
    assert cut.labels[-1] == end_of_turn(tokenizer)
    assert sum(label == end_of_turn(tokenizer) for label in cut.labels) == 2


def test_an_answer_that_does_not_fit_is_left_out() -> None:
    encoder = SequenceEncoder(make_tokenizer("gemma"), TaskSpec("intent", None), 16)
    assert encoder.encode(intent("word " * 40)) is None
    assert encoder.shortened == 0


def test_a_template_without_an_end_of_turn_is_refused() -> None:
    tokenizer = make_tokenizer("gemma")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    with pytest.raises(ModelError, match="no end-of-turn token"):
        end_of_turn(tokenizer)


def trl_labels(tokenizer: Any, conversation: list[dict[str, Any]]) -> list[int]:
    """The labels that trl's own dataset preparation gives with `assistant_only_loss=True`."""
    from types import SimpleNamespace

    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    trainer = SimpleNamespace(chat_template=None, completion_only_loss=False, _tokenizer=tokenizer)
    config = SFTConfig(output_dir="unused", assistant_only_loss=True, max_length=None, use_cpu=True, bf16=False)
    dataset = Dataset.from_list([{"messages": conversation}])
    prepared = SFTTrainer._prepare_dataset(trainer, dataset, tokenizer, config, False, None, "train")
    return prepared[0]["labels"]
