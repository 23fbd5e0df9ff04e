"""Corpus tasks whose answer is JSON: extraction with named keys, calls of declared functions, dialogues."""

import json
from typing import Any

from pocketloop.models.tiny.frames import (
    INTEGER_KINDS,
    Document,
    Frame,
    Slot,
    catalogue,
    make_frame,
    make_slot,
    refill,
    request,
    some_slots,
)
from pocketloop.models.tiny.values import KINDS
from pocketloop.models.tiny.words import Words


def as_json(value: Any) -> str:
    """JSON on one line, as chat templates write it."""
    return json.dumps(value, ensure_ascii=False)


def chat(task: str, *turns: str, system: str = "") -> Document:
    """A document of alternating user and assistant turns."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for i, text in enumerate(turns):
        messages.append({"role": "assistant" if i % 2 else "user", "content": text})
    return {"task": task, "messages": messages}


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def extract(w: Words) -> Document:
    """A sentence with values, keys named in the prompt: JSON with those of the keys that the sentence has."""
    rng = w.rng
    lower = rng.random() < 0.55
    frame = make_frame(w, lower=lower, most=5)
    for slot in frame.slots:
        slot.value = slot.text
    present = some_slots(rng, frame)
    asked = [s for s in frame.slots if rng.random() < 0.85] or present[:1]
    rng.shuffle(asked)
    sentence = request(w, frame, present, lower=lower)
    keys = rng.choice((", ", " ", " and ", " | ")).join(s.key for s in asked)
    answer = as_json({s.key: s.text for s in asked if any(s is p for p in present)})
    system = rng.choice(("", "", "", f"Return JSON with the keys {keys}.", f"keys: {keys}", f"Find {keys}."))
    if system:
        return chat("extract", sentence, answer, system=system)
    prompt = rng.choice(
        (
            f"Extract {keys} from: {sentence}",
            f"fill {keys}\n{sentence}",
            f"{sentence}\nkeys: {keys}",
            f'"{sentence}" What is {keys}? Answer in JSON.',
            f"Fill the keys {keys} from this request: {sentence}",
            f"Sentence: {sentence}\nJSON with {keys}:",
        )
    )
    return chat("extract", prompt, answer)


def call_declared(w: Words) -> Document:
    """One to four functions declared as tools; the request is for one of them (now and then for two in a row)."""
    rng = w.rng
    lower = rng.random() < 0.55
    frames = [make_frame(w, lower=lower, most=4) for _ in range(rng.choice((1, 1, 1, 2, 2, 2, 3, 3, 4, 6)))]
    frames = list({f.name: f for f in frames}.values())
    chosen = frames[: 2 if rng.random() < 0.06 else 1]
    asks, calls = [], []
    for frame in chosen:
        present = some_slots(rng, frame)
        asks.append(request(w, frame, present, lower=lower))
        calls.append(_call(frame.name, frame.arguments(present)))
    rng.shuffle(frames)
    joint = rng.choice((" and then ", " also ", " and ", "\n"))
    messages: list[dict[str, Any]] = [{"role": "user", "content": joint.join(asks)}]
    if rng.random() < 0.4:
        messages.insert(0, {"role": "system", "content": rng.choice(SYSTEMS)})
    messages.append({"role": "assistant", "content": "", "tool_calls": calls})
    if rng.random() < 0.06 and len(chosen) == 1:
        value = rng.choice(list(calls[0]["function"]["arguments"].values()))
        done = f"{w.rng.choice(('Done', 'OK', 'Ready', 'Finished'))}: {value}"
        messages += [
            {"role": "tool", "content": as_json({"result": value})},
            {"role": "assistant", "content": done},
        ]
    return {"task": "call_declared", "tools": [f.declaration() for f in frames], "messages": messages}


SYSTEMS = (
    "You are a helpful assistant.",
    "Call a function.",
    "Answer with one function call.",
    "Use the tools.",
    "Reply in JSON only.",
    "You turn requests into calls.",
)
REQUEST_SYSTEMS = (
    "",
    "",
    "Answer with one function call.",
    "Call the right function.",
    "You call functions.",
    "Reply with a call.",
)


def call_known(w: Words) -> Document:
    """A call of one of the corpus's own made-up functions, which are never declared: name and keys from memory."""
    rng = w.rng
    lower = rng.random() < 0.6
    name, verb, noun, keys = rng.choice(_known())
    frame = Frame(name, verb, noun)
    for key, kind in keys:
        slot = Slot(key, kind, rng.choice(KINDS[kind][1]), "", "")
        refill(w, slot, lower=lower, integer=kind in INTEGER_KINDS)
        frame.slots.append(slot)
    present = some_slots(rng, frame)
    sentence = request(w, frame, present, lower=lower)
    messages: list[dict[str, Any]] = [{"role": "user", "content": sentence}]
    system = rng.choice(REQUEST_SYSTEMS)
    if system:
        messages.insert(0, {"role": "system", "content": system})
    messages.append({"role": "assistant", "content": "", "tool_calls": [_call(name, frame.arguments(present))]})
    return {"task": "call_known", "messages": messages}


_KNOWN: list[tuple[str, str, str, list[tuple[str, str]]]] = []


def _known() -> list[tuple[str, str, str, list[tuple[str, str]]]]:
    if not _KNOWN:
        _KNOWN.extend(catalogue())
    return _KNOWN


def few_shot(w: Words) -> Document:
    """Two or three solved requests for one function, then one more: the pattern has to be read off them."""
    rng = w.rng
    lower = rng.random() < 0.6
    frame = make_frame(w, lower=lower, most=3)
    as_call = rng.random() < 0.5
    turns: list[str] = []
    for _ in range(rng.choice((2, 3, 3))):
        for slot in frame.slots:
            if slot.kind != "option":
                refill(w, slot, lower=lower, integer=isinstance(slot.value, int))
            else:
                slot.text = slot.value = rng.choice(frame.options[slot.key])
        present = some_slots(rng, frame)
        arguments = frame.arguments(present)
        answer = {"function": frame.name, "arguments": arguments} if as_call else arguments
        turns += [request(w, frame, present, lower=lower), as_json(answer)]
    return chat("few_shot", *turns)


def dialogue(w: Words) -> Document:
    """A request with a value missing; the assistant asks for it, the user gives it, the answer is the JSON."""
    rng = w.rng
    lower = rng.random() < 0.55
    frame = make_frame(w, lower=lower, most=4)
    for slot in frame.slots:
        slot.value = slot.text
    missing = rng.choice(frame.slots)
    present = [s for s in frame.slots if s is not missing]
    first = request(w, frame, present, lower=lower)
    question = rng.choice(("Which {}?", "Which {} should it be?", "I still need the {}.", "And the {}?")).format(
        missing.key
    )
    reply = rng.choice(("{}", "{}", "it is {}", "{} please", "let's say {}", "make it {}")).format(missing.text)
    turns = [first, question, reply]
    value = missing.text
    if rng.random() < 0.3:
        other = make_slot(w, missing.kind if missing.kind in KINDS else "title", set(), lower=lower)
        value = other.text
        turns += [rng.choice(("OK: {}.", "You said {}.", "{}, right?")).format(missing.text)]
        turns += [rng.choice(("no, {}", "sorry, i meant {}", "actually {}", "change it to {}")).format(value)]
    summary = {s.key: (value if s is missing else s.text) for s in frame.slots}
    if rng.random() < 0.5:
        turns.append(as_json({"function": frame.name, "arguments": summary}))
        return chat("dialogue", *turns, system=f"Function: {frame.name}({', '.join(summary)})")
    turns.append(as_json(summary))
    return chat("dialogue", *turns, system=f"Collect {', '.join(summary)} and answer in JSON.")


def read_json(w: Words) -> Document:
    """JSON in the prompt: the value under a key, the key of a value, or the object with one value changed."""
    rng = w.rng
    frame = make_frame(w, lower=rng.random() < 0.5, most=5)
    data = {s.key: s.text for s in frame.slots}
    slot = rng.choice(frame.slots)
    roll = rng.random()
    if roll < 0.35:
        return chat(
            "read_json",
            f"{as_json(data)}\n{rng.choice(('Look up', 'Value of', 'Read out'))} {slot.key}",
            slot.text,
        )
    if roll < 0.5:
        return chat("read_json", f"{as_json(data)}\nWhich key has the value {slot.text}?", slot.key)
    if roll < 0.75:
        lines = "\n".join(f"{k}: {v}" for k, v in data.items())
        if rng.random() < 0.5:
            return chat("read_json", f"To JSON:\n{lines}", as_json(data))
        return chat("read_json", f"As lines: {as_json(data)}", lines)
    fresh = make_slot(w, slot.kind if slot.kind in KINDS else "title", set(), lower=False)
    prompt = f"{as_json(data)}\n{rng.choice(('Change', 'Set', 'Update'))} {slot.key} to {fresh.text}."
    return chat("read_json", prompt, as_json({**data, slot.key: fresh.text}))
