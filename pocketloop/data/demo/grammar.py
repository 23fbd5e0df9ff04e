"""The template files: functions, intents, values and dialogues written as sentences with slots.

`templates/calendar.txt` explains the notation in its first lines.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from random import Random
from typing import Any

from pocketloop.data.demo._random import Split, part_of

SKILL_FILES = (
    "calendar",
    "reminders",
    "messages",
    "calls",
    "contacts",
    "lists",
    "recipes",
    "navigation",
    "smart_home",
    "music",
    "weather",
    "timers",
    "health",
    "wellness",
    "out_of_scope",
)
"""One file an intent; their order is that of the labels."""

SLOT = re.compile(r"\{(\w+)(?::(\w+))?\}")
_CHOICE = re.compile(r"\(([^()]*)\)")


@dataclass(frozen=True)
class Template:
    """A sentence with slots; `implied` holds the arguments that its words mean without naming them."""

    text: str
    imperative: bool = False
    implied: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class AskBack:
    """A dialogue in which the assistant asks for what the first turn left out."""

    first: Template
    question: str
    reply: Template


@dataclass
class Section:
    """Everything that people say to one function, or to an intent beside its functions.

    `slots` maps an argument to the kind of value that it takes; a slot that it does not list is no argument.
    """

    function: str | None
    intent: str
    slots: dict[str, str] = field(default_factory=dict)
    said: dict[Split, list[Template]] = field(default_factory=lambda: {"train": [], "heldout": []})
    ask: list[AskBack] = field(default_factory=list)
    done: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Twins:
    """A harmful request and the harmless one that resembles it, with the function that serves the latter."""

    harmful: Template
    benign: Template
    function: str


def choose(text: str, rng: Random) -> str:
    """Pick one of each `(a|b)`, innermost first."""
    while "(" in text:
        text, found = _CHOICE.subn(lambda match: rng.choice(match[1].split("|")), text)
        if not found:
            break
    return text


def _literal(text: str) -> Any:
    return int(text) if text.isdigit() else text


def pairs(text: str) -> tuple[tuple[str, Any], ...]:
    """`a=b, c=4` as pairs; digits become integers."""
    halves = (pair.split("=", 1) for pair in text.split(",") if pair.strip())
    return tuple((key.strip(), _literal(value.strip())) for key, value in halves)


def parse_template(line: str) -> Template:
    """Read one template line: `! text :: k=v`."""
    text, _, implied = line.partition(" :: ")
    return Template(text.removeprefix("! ").strip(), line.startswith("! "), pairs(implied))


def _ask_back(line: str) -> AskBack:
    dialogue, _, implied = line.partition(" :: ")
    first, question, reply = dialogue.split(" => ")
    return AskBack(parse_template(first), question.strip(), parse_template(f"{reply} :: {implied}"))


def _lines(name: str) -> list[str]:
    text = resources.files("pocketloop.data.demo").joinpath(f"templates/{name}.txt").read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if not line.startswith("#")]


def _header(line: str) -> Section:
    name, *rest = line.removeprefix("== ").split()
    if name.startswith("intent:"):
        return Section(None, name.removeprefix("intent:"))
    return Section(name, rest[0], dict(word.split("=", 1) for word in rest[1:]))


@lru_cache(maxsize=1)
def sections() -> tuple[Section, ...]:
    """All functions and intents of the household."""
    found: list[Section] = []
    part = ""
    for name in SKILL_FILES:
        for line in filter(None, _lines(name)):
            if line.startswith("== "):
                found.append(_header(line))
            elif line.startswith("-- "):
                part = line.removeprefix("-- ")
            elif part == "ask":
                found[-1].ask.append(_ask_back(line))
            elif part == "done":
                found[-1].done.append(line)
            else:
                found[-1].said["heldout" if part == "heldout" else "train"].append(parse_template(line))
    return tuple(found)


@lru_cache(maxsize=1)
def functions() -> dict[str, Section]:
    """The sections that belong to functions, by name."""
    return {section.function: section for section in sections() if section.function}


@lru_cache(maxsize=1)
def intents() -> dict[str, list[Section]]:
    """The sections of each intent: its functions', then its own."""
    found: dict[str, list[Section]] = {}
    for section in sections():
        found.setdefault(section.intent, []).append(section)
    return found


@lru_cache(maxsize=1)
def twins() -> dict[Split, list[Twins]]:
    """Pairs of harmful and benign requests, by split."""
    found: dict[Split, list[Twins]] = {"train": [], "heldout": []}
    part: Split = "train"
    for line in filter(None, _lines("harmful")):
        if line.startswith("-- "):
            part = "heldout" if line == "-- heldout" else "train"
            continue
        harmful, _, rest = line.partition(" => ")
        sentence, _, call = rest.partition(" > ")
        function, _, implied = call.partition(" :: ")
        imperative = "! " if harmful.startswith("! ") and not sentence.startswith(("how ", "what ", "which ")) else ""
        benign = parse_template(f"{imperative}{sentence} :: {implied}")
        found[part].append(Twins(parse_template(harmful), benign, function.strip()))
    return found


@lru_cache(maxsize=1)
def pii_sentences() -> dict[str, list[str]]:
    """Sentences with personal data: `train`, `heldout`, `clean train`, `clean heldout`, `body_pii`, `task_pii`."""
    found: dict[str, list[str]] = {}
    section, part = "", ""
    for line in filter(None, _lines("pii")):
        if line.startswith("== "):
            section = line.removeprefix("== ")
        elif line.startswith("-- "):
            part = line.removeprefix("-- ")
        else:
            found.setdefault(part if section == "pii" else section, []).append(line)
    return found


@lru_cache(maxsize=1)
def dialogues() -> tuple[tuple[tuple[str, str], ...], ...]:
    """Chats of the skill `assistant`: turns of (U | A | A! | T, text)."""
    blocks = "\n".join(_lines("chat")).strip().split("\n\n")
    turns = (tuple(line.split(" ", 1) for line in block.splitlines() if line) for block in blocks)
    return tuple(tuple((who, text) for who, text in block) for block in turns)


@dataclass(frozen=True)
class Kind:
    """The entries of one kind of value: (surface, argument or None where the surface is the argument)."""

    entries: dict[Split, tuple[tuple[str, Any], ...]]
    split: bool


@lru_cache(maxsize=1)
def kinds() -> dict[str, Kind]:
    """The kinds of values in `values.txt`, each divided between training and evaluation where it says so."""
    raw: dict[str, list[str]] = {}
    split_kinds = set()
    name = ""
    for line in filter(None, _lines("values")):
        if line.startswith("== "):
            name, *flags = line.removeprefix("== ").split()
            raw[name] = []
            if "split" in flags:
                split_kinds.add(name)
        else:
            raw[name] += [entry.strip() for entry in line.split(";") if entry.strip()]
    for name in ("body_pii", "task_pii"):
        raw[name] = pii_sentences()[name]
    return {name: _kind(entries, name in split_kinds) for name, entries in raw.items()}


def _kind(entries: list[str], split: bool) -> Kind:
    parsed = []
    for entry in entries:
        surface, arrow, value = entry.partition(" => ")
        parsed.append((surface, _literal(value) if arrow else None))
    if not split:
        return Kind({"train": tuple(parsed), "heldout": tuple(parsed)}, False)
    train = tuple(pair for pair in parsed if part_of(pair[0]) == "train")
    heldout = tuple(pair for pair in parsed if part_of(pair[0]) == "heldout")
    return Kind({"train": train, "heldout": heldout}, True)
