"""What is said in one event: the turns, the personal data in them, the right answer and the one that was given."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from pocketloop.data.demo.examples import (
    DECLINE,
    OUT_OF_SCOPE,
    Request,
    arguments_of,
    benign_twin,
    function_request,
    harmful_request,
    intent_request,
)
from pocketloop.data.demo.grammar import AskBack, Section, Template, dialogues, functions, intents, pairs
from pocketloop.data.demo.mistakes import Call, wrong_call, wrong_label
from pocketloop.data.demo.people import Persona
from pocketloop.data.demo.writing import Said, Value, Writer

MISTAKES = 0.12
SWAPS = {"body": ("body_pii", 0.4), "task": ("task_pii", 0.35)}


@dataclass
class Conversation:
    """Turns as an event carries them, with `pii` marks {turn, start, end, type} and what the answer should be."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    pii: list[dict[str, Any]] = field(default_factory=list)
    right: bool = True
    correction: Any = None

    def add(self, role: str, said: Said | str, calls: list[Call] | None = None) -> None:
        """Append a turn and mark its personal data."""
        text = said if isinstance(said, str) else said.text
        spans = [] if isinstance(said, str) else said.spans
        turn = len(self.messages)
        self.pii += [{"turn": turn, "start": start, "end": end, "type": kind} for start, end, kind in spans]
        message: dict[str, Any] = {"role": role, "content": text}
        if calls:
            message["tool_calls"] = calls
        self.messages.append(message)


def function_conversation(rng: Random, persona: Persona) -> Conversation:
    """A request to the function caller, its call, and often the tool's result and a closing word.

    One in ten lacks something at first: the assistant asks back and the call takes its arguments from both turns. Three
    in a hundred are a no to the assistant's own question.
    """
    writer = Writer(rng, "train", persona, SWAPS)
    talk = Conversation()
    chance = rng.random()
    names = [name for name in functions() if name != DECLINE]
    refused = chance < 0.03
    if chance < 0.13:
        section = functions()[DECLINE if refused else rng.choice(names)]
        call, slots = _ask_back(writer, section, rng.choice(section.ask), talk)
    else:
        asked = _asked(writer, chance, names)
        section = functions()[str(asked.function)]
        call, slots = {"name": asked.function, "arguments": asked.arguments}, asked.said.slots
        talk.add("user", asked.said)
    given = call
    if rng.random() < MISTAKES:
        given = wrong_call(call, rng, lambda function: _stranger_call(rng, function, section))
        talk.right = given == call
        talk.correction = {"tool_calls": [call]}
    talk.add("assistant", "", [given])
    if rng.random() < 0.4 and not refused:
        status = "declined" if given["name"] == DECLINE else "ok"
        talk.add("tool", f'{{"status": "{status}"}}')
        words = _closing(writer, functions()[given["name"]], slots if given == call else {})
        talk.add("assistant", words)
    return talk


def _asked(writer: Writer, chance: float, names: list[str]) -> Request:
    """Five in a hundred are harmful, four the benign twins of harmful ones, three beyond what the assistant can do."""
    if chance < 0.18:
        return harmful_request(writer)
    if chance < 0.22:
        twin = benign_twin(writer)
        assert twin is not None
        return twin
    if chance < 0.25:
        return function_request(writer, DECLINE)
    return function_request(writer, writer.rng.choice(names))


def _ask_back(writer: Writer, section: Section, dialogue: AskBack, talk: Conversation) -> tuple[Call, dict[str, Value]]:
    """Write the three turns of a dialogue that completes a request; returns the call and its slots."""
    first = writer.say(dialogue.first, section.slots)
    reply = writer.say(dialogue.reply, section.slots)
    talk.add("user", first)
    talk.add("assistant", writer.compose(dialogue.question, first.slots))
    talk.add("user", reply)
    merged = Said("", [], first.slots | reply.slots)
    whole = Template("", implied=dialogue.first.implied + dialogue.reply.implied)
    return {"name": section.function, "arguments": arguments_of(section, whole, merged)}, merged.slots


def _stranger_call(rng: Random, function: str | None, section: Section) -> Call:
    """Somebody else's call to a function, or to any but that of `section`."""
    writer = Writer(rng, "train")
    name = function or rng.choice([name for name in functions() if name != section.function])
    made = function_request(writer, name)
    return {"name": made.function, "arguments": made.arguments}


def _closing(writer: Writer, section: Section, slots: dict[str, Value]) -> Said:
    """A confirmation, naming only values that the call really took."""
    choices = [text for line in section.done for text in line.strip("()").split("|")]
    usable = [text for text in choices if all(name in slots for name in _slots_of(text))]
    return writer.compose(writer.rng.choice(usable), slots)


def _slots_of(text: str) -> list[str]:
    return [part.partition("}")[0] for part in text.split("{")[1:]]


def intent_conversation(rng: Random, persona: Persona) -> Conversation:
    """A request and the router's label, right in about seven of eight."""
    writer = Writer(rng, "train", persona, SWAPS)
    labels = list(intents())
    talk = Conversation()
    chance = rng.random()
    if chance < 0.06:
        asked = harmful_request(writer)
    elif chance < 0.10:
        twin = benign_twin(writer)
        assert twin is not None
        asked = twin
    else:
        asked = intent_request(writer, rng.choice(labels) if chance < 0.95 else OUT_OF_SCOPE)
    talk.add("user", asked.said)
    given = asked.intent
    if rng.random() < MISTAKES:
        given = wrong_label(asked.intent, labels, rng)
        talk.right = False
        talk.correction = asked.intent if rng.random() < 0.7 else {"content": asked.intent}
    talk.add("assistant", given)
    return talk


def chat_conversation(rng: Random, persona: Persona) -> Conversation:
    """One of the written dialogues with this persona's values; a mistaken one invents a value of a call."""
    writer = Writer(rng, "train", persona)
    talk = Conversation()
    known: dict[str, Value] = {}
    turns = rng.choice(dialogues())
    calls = [place for place, (who, _) in enumerate(turns) if who == "A!"]
    mistaken = rng.choice(calls) if calls and rng.random() < MISTAKES else None
    pending: list[Call] = []
    for place, (who, text) in enumerate(turns):
        if who == "A!":
            name, _, arguments = text.partition(" ")
            call = {"name": name, "arguments": {key: _argument(value, known) for key, value in pairs(arguments)}}
            if place == mistaken:
                section = functions()[name]
                wrong = wrong_call(call, rng, lambda function, at=section: _stranger_call(rng, function, at))  # type: ignore[misc]
                talk.right, talk.correction = wrong == call, {"tool_calls": [call]}
                call = wrong
            pending = [call]
            talk.add("assistant", "", pending)
        elif who == "T":
            talk.add("tool", text)
        else:
            said = writer.compose(text, known)
            known.update(said.slots)
            talk.add("user" if who == "U" else "assistant", said)
    return talk


def _argument(value: Any, known: dict[str, Value]) -> Any:
    """`{slot}` as that slot's meaning; anything else as it is."""
    if isinstance(value, str) and value.startswith("{"):
        return known[value.strip("{}")].meaning
    return value
