import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from pocketloop.models.tiny.build import new_tokenizer
from pocketloop.models.tiny.corpus import TASKS, documents
from pocketloop.models.tiny.tokenizer import BYTES, SPECIAL, encode, render

LETTERS = re.compile(r"[^\W\d_]+")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return new_tokenizer(1024)


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def kind(character: str) -> str:
    if character == "\n":
        return "line break"
    return "letter" if LETTERS.match(character) else "digit" if character.isdigit() else "other"


# U+2581 stands for the space inside the tokenizer, as in Gemma's, so that one character comes back as a space.
@given(st.text(st.characters(exclude_characters="\u2581", exclude_categories=("Cs",)), max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_survives_encoding_and_decoding(tokenizer, text):
    special = any(mark in text for mark in SPECIAL)
    assert special or tokenizer.decode(ids(tokenizer, text)) == text


@given(st.from_regex(r"[A-Za-zéöñ]{1,12}", fullmatch=True))
@settings(max_examples=200, deadline=None)
def test_a_word_has_the_same_tokens_everywhere(tokenizer, word):
    alone = ids(tokenizer, word)
    for before, after in [("say ", " now"), ('"', '"'), ('{"city": "', '"}'), ("x\n", "\n"), ("3", "4"), ("a_", "_b")]:
        around = ids(tokenizer, before) + alone + ids(tokenizer, after)
        assert ids(tokenizer, before + word + after) == around


def test_no_token_mixes_letters_digits_line_breaks_and_the_rest(tokenizer):
    pieces = set(tokenizer.get_vocab()) - set(SPECIAL) - set(BYTES)
    mixed = [p for p in pieces if len({kind(c) for c in p}) > 1]
    assert not mixed
    assert not [p for p in pieces if len(p) > 1 and kind(p[0]) in ("digit", "line break")]


def merged_greedily(vocabulary: dict[str, int], text: str) -> list[str]:
    """Independent oracle: merge the leftmost adjacent pair that makes the token of lowest id, until none is left."""
    parts = list(text.replace(" ", "\u2581"))
    while True:
        pairs = [(vocabulary[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in vocabulary]
        if not pairs:
            return parts
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@given(st.text('abcdehilnorstABST 019"{}:_,.-\n', max_size=40))
@settings(max_examples=300, deadline=None)
def test_merging_by_lookup_gives_the_same_tokens_as_the_list_of_merges(tokenizer, text):
    vocabulary = {t: i for t, i in tokenizer.get_vocab().items() if t not in SPECIAL and t not in BYTES}
    assert tokenizer.tokenize(text) == merged_greedily(vocabulary, text)


@pytest.mark.parametrize("task", TASKS)
def test_the_fast_rendering_is_the_chat_templates(tokenizer, task):
    for document in itertools.islice(documents(5, only=task), 20):
        if "messages" in document:
            text = tokenizer.apply_chat_template(document["messages"], tools=document.get("tools"), tokenize=False)
            assert "".join(piece for piece, _ in render(document)) == text


def test_the_generation_mask_covers_exactly_the_replies(tokenizer):
    for document in itertools.islice(documents(6, only="dialogue"), 20):
        chat = tokenizer.apply_chat_template(
            document["messages"], return_assistant_tokens_mask=True, return_dict=True, tokenize=True
        )
        [(expected_ids, said)] = encode(tokenizer, [document])
        assert list(chat["input_ids"]) == expected_ids
        assert [bool(m) for m in chat["assistant_masks"]] == said
        replies = [m["content"] + "<end_of_turn>" for m in document["messages"] if m["role"] == "assistant"]
        assert tokenizer.decode([t for t, s in zip(expected_ids, said, strict=True) if s]) == "".join(replies)


def test_a_prompt_is_a_prefix_of_the_same_conversation_with_its_reply(tokenizer):
    for document in itertools.islice(documents(7, only="call_declared"), 30):
        *before, reply = document["messages"][: 2 + (document["messages"][0]["role"] == "system")]
        tools = document["tools"]
        prompt = tokenizer.apply_chat_template(before, tools=tools, add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template([*before, reply], tools=tools, return_dict=False)
        assert whole[: len(prompt)] == prompt


def test_the_template_carries_tools_calls_and_results(tokenizer):
    lamp = {
        "type": "function",
        "function": {
            "name": "dim_lamp",
            "parameters": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "mode": {"enum": ["low", "high"]}},
            },
        },
    }
    call = {"type": "function", "function": {"name": "dim_lamp", "arguments": {"name": "Zoë's <lamp>", "mode": "low"}}}
    text = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "dim it"},
            {"role": "assistant", "content": "", "tool_calls": [call, call]},
            {"role": "tool", "content": "ok"},
        ],
        tools=[lamp],
        tokenize=False,
        add_generation_prompt=True,
    )
    line = '{"function": "dim_lamp", "arguments": {"name": "Zoë\'s <lamp>", "mode": "low"}}'
    assert text == (
        "<bos><start_of_turn>system\nBe brief.\nFunctions:\n"
        '{"function": "dim_lamp", "arguments": {"name": "string", "mode": ["low", "high"]}}<end_of_turn>\n'
        "<start_of_turn>user\ndim it<end_of_turn>\n"
        f"<start_of_turn>model\n{line}\n{line}<end_of_turn>\n"
        "<start_of_turn>tool\nok<end_of_turn>\n<start_of_turn>model\n"
    )
