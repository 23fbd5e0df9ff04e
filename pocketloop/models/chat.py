"""From a conversation to token ids, through the tokenizer's own chat template."""

from collections.abc import Sequence
from typing import Any

from pocketloop.contracts.events import Conversation


def load_tokenizer(folder: Any, chat_template: str | None = None) -> Any:
    """Load the tokenizer in `folder`, padding on the left; `chat_template` is a file that replaces its own."""
    from pathlib import Path

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if chat_template:
        tokenizer.chat_template = Path(chat_template).read_text(encoding="utf-8")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def prompt_text(tokenizer: Any, messages: Conversation, tools: list[dict[str, Any]] | None = None) -> str:
    """The rendered prompt, special tokens included, ending where the assistant's answer begins."""
    text: str = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
    return text


def encode_prompt(tokenizer: Any, messages: Conversation, tools: list[dict[str, Any]] | None = None) -> list[int]:
    """Token ids of the rendered prompt."""
    ids: list[int] = tokenizer(prompt_text(tokenizer, messages, tools), add_special_tokens=False)["input_ids"]
    return ids


def encode_prompts(
    tokenizer: Any, conversations: Sequence[Conversation], tools: list[dict[str, Any]] | None = None
) -> list[list[int] | None]:
    """Token ids of each rendered prompt; `None` for a conversation that the chat template does not take.

    Templates refuse, for one, two turns of the user in a row.
    """
    from jinja2 import TemplateError

    texts: list[str | None] = []
    for conversation in conversations:
        try:
            texts.append(prompt_text(tokenizer, conversation, tools))
        except TemplateError:
            texts.append(None)
    rendered = [text for text in texts if text is not None]
    ids = iter(tokenizer(rendered, add_special_tokens=False)["input_ids"] if rendered else [])
    return [None if text is None else next(ids) for text in texts]


def stop_ids(tokenizer: Any, model_config: Any = None) -> set[int]:
    """The tokens that end an answer: the tokenizer's and generation config's eos, and end-of-turn marks."""
    stops = {tokenizer.eos_token_id}
    configured = getattr(model_config, "eos_token_id", None)
    stops.update(configured if isinstance(configured, list) else [configured])
    vocabulary = tokenizer.get_vocab()
    stops.update(vocabulary.get(mark) for mark in ("<end_of_turn>", "<|eot_id|>", "<|im_end|>"))
    return {stop for stop in stops if stop is not None}
