"""Example files in the seeds' formats, and the generated sets behind `demo://`."""

import shutil
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import InteractionEvent, Message, Quarantined
from pocketloop.contracts.examples import (
    ChatRow,
    Example,
    FunctionRow,
    IntentRow,
    Slices,
    Task,
    example_from_row,
    make_example,
)
from pocketloop.contracts.files import atomic_file, canonical_json, sha256_file, sha256_text
from pocketloop.contracts.home import Home, project_root
from pocketloop.data.lines import HashingReader, RawLine, open_raw, read_lines
from pocketloop.data.parsing import Refused, explain_validation, parse_object
from pocketloop.data.received import device_digest
from pocketloop.privacy.records import safe_tag
from pocketloop.tasks.turns import every_answer, up_to_answer

_TASK_OF_KIND: dict[str, Task] = {"intent": "intent", "function": "function_call", "multi-turn": "chat"}
_FORMATS = '{"input", "output"}, {"input", "function", "arguments"} or {"messages"}'

Turns = Literal["last", "every"]
"""Whether a conversation is one example, or one for each turn that is answered in it."""

HOME_SCHEME = "home://examples/"
"""An example file that `import_examples` keeps: the address holds wherever the home lies."""

MOST_REFUSED = 1000
"""Refused lines of an imported file that are listed one by one; all of them are counted."""


class ExamplesImport(BaseModel):
    """An example file that was taken into the home: what it holds, and its address for a recipe.

    `quarantine` lists the first `MOST_REFUSED` of the refused lines.
    """

    model_config = ConfigDict(extra="forbid")

    task: Task
    examples: int
    refused: int
    uri: str
    quarantine: list[Quarantined]


def read_examples(
    uri: str, task: Task, role: str = "", turns: Turns = "last"
) -> tuple[list[Example], list[Quarantined]]:
    """All examples behind `uri` and the lines that were refused, as `stream_examples` gives them one by one."""
    examples: list[Example] = []
    refused: list[Quarantined] = []
    for found in stream_examples(uri, task, role=role, turns=turns):
        if isinstance(found, Example):
            examples.append(found)
        else:
            refused.append(found)
    return examples, refused


def explain(refused: Sequence[Quarantined]) -> str:
    """Where the first refused line stands and what is wrong with it, and how many more there are."""
    first = refused[0]
    more = f"; {len(refused) - 1} more lines cannot be used" if len(refused) > 1 else ""
    return ": ".join(filter(None, [first.where, first.reason, first.detail])) + more


def stream_examples(
    uri: str, task: Task, forgotten: Collection[str] = (), *, role: str = "", turns: Turns = "last"
) -> Iterator[Example | Quarantined]:
    """Read an example file, or generate a set such as `demo://functions?split=train&n=500&seed=1`, line by line.

    The examples are to be answered in `role`. Labels and calls serve as answers of a chat, too. With `turns="every"` a
    conversation gives one example for each turn that is answered in it; they share `Example.dialogue`.

    A file's format is told line by line, by its keys. Interaction events serve as examples of a chat where consent
    allows it, unless the digest of their device is in `forgotten`. A relative path is seen from the working folder,
    then from the checkout.

    Raises:
        DataError: there is no such file or set, or (at its end) no line of it is an example of `task`.
    """
    found_here = _demo(uri, task) if uri.startswith("demo://") else _lines(uri, task, forgotten, turns)
    for found in found_here:
        yield found.in_role(role) if isinstance(found, Example) else found


def _lines(uri: str, task: Task, forgotten: Collection[str], turns: Turns) -> Iterator[Example | Quarantined]:
    path = find_example_file(uri)
    first: Quarantined | None = None
    examples = 0
    with open_raw(path) as raw:
        for found in _read(raw, path.name, task, forgotten, turns):
            if isinstance(found, Example):
                examples += 1
            else:
                first = first or found
            yield found
    if not examples:
        why = f"; {first.where}: {first.reason}: {first.detail}" if first else ": it is empty"
        raise DataError(f"{uri}: no {task} example in it{why} (known formats: {_FORMATS})")


def import_examples(home: Home, path: Path) -> ExamplesImport:
    """Copy an example file into the home, named by its content, and say how a recipe refers to it.

    Raises:
        DataError: there is no such file, or it holds no examples.
    """
    task = _task_of(path)
    if task is None:
        raise DataError(f"{path}: its first line is no example (known formats: {_FORMATS})")
    examples = refused = 0
    quarantine: list[Quarantined] = []
    for found in stream_examples(str(path), task):
        if isinstance(found, Example):
            examples += 1
            continue
        refused += 1
        if len(quarantine) < MOST_REFUSED:
            quarantine.append(found)
    name, dot, suffixes = path.name.partition(".")
    target = home.root / "examples" / f"{name}-{sha256_file(path)[:12]}{dot}{suffixes}"
    if not target.is_file():
        with atomic_file(target) as temporary:
            shutil.copyfile(path, temporary)
    uri = HOME_SCHEME + target.name
    return ExamplesImport(task=task, examples=examples, refused=refused, uri=uri, quarantine=quarantine)


def find_example_file(uri: str) -> Path:
    """Where the file behind the address of an example source lies; it need not exist."""
    if uri.startswith(HOME_SCHEME):
        return Home().root / "examples" / uri.removeprefix(HOME_SCHEME)
    path = Path(uri.removeprefix("file://")).expanduser()
    if path.is_absolute() or path.is_file():
        return path
    return project_root() / path


def is_example_file(path: Path) -> bool:
    """Whether the file's first line that holds anything has the keys of an example, and not those of an event."""
    return path.is_file() and _task_of(path) is not None


def _task_of(path: Path) -> Task | None:
    with open_raw(path) as raw:
        line = next((line for line in read_lines(raw) if line.problem or line.data.strip()), None)
    if line is None or line.problem:
        return None
    try:
        value = parse_object(line.data)
    except Refused:
        return None
    kind = _kind(value)
    last: Any = (value.get("messages") or [None])[-1] if kind == "multi-turn" else None
    if isinstance(last, dict) and last.get("tool_calls") and not last.get("content"):
        return "function_call"
    return _TASK_OF_KIND.get(kind)


def _demo(uri: str, task: Task) -> Iterator[Example]:
    parts = urlsplit(uri)
    options = {"split": "train", "n": "500", "seed": "1"}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in options:
            near = get_close_matches(key, options, 1)
            raise DataError(
                f"{uri}: unknown option {key!r}; {f'did you mean {near[0]!r}?' if near else 'known: split, n, seed'}"
            )
        options[key] = value
    try:
        size, seed = int(options["n"]), int(options["seed"])
    except ValueError:
        raise DataError(f"{uri}: n and seed are whole numbers") from None
    if options["split"] not in ("train", "heldout") or size < 1:
        raise DataError(f"{uri}: split is train or heldout, and n is at least 1")
    from pocketloop.data.demo import SHAPES, Split, demo_examples, demo_shape

    known = ("functions", "intent", *SHAPES)
    if parts.netloc not in known:
        near = get_close_matches(parts.netloc, known, 1)
        raise DataError(
            f"{uri}: no such demo set; {f'did you mean {near[0]!r}?' if near else 'known: ' + ', '.join(known)}"
        )
    split = cast(Split, options["split"])
    source = f"demo://{parts.netloc}?split={split}"
    if parts.netloc in SHAPES:
        made = (row.example(source) for row in demo_shape(parts.netloc, split, size, seed))
    else:
        rows = demo_examples(cast(Any, parts.netloc), split, size, seed)
        made = (example_from_row(row, source=source) for row in rows)
    for example in made:
        if task not in (example.task, "chat"):
            raise DataError(f"{uri}: holds {example.task} examples, but the task is {task}")
        yield example if example.task == task else make_example(task, example.messages, source=source)


def _read(
    raw: HashingReader, name: str, task: Task, forgotten: Collection[str], turns: Turns
) -> Iterator[Example | Quarantined]:
    for line in read_lines(raw):
        if line.problem is None and not line.data.strip():
            continue
        try:
            yield from _examples(line, name, task, forgotten, turns)
        except Refused as refusal:
            yield Quarantined(
                stage="collect",
                reason=refusal.reason,
                detail=refusal.detail,
                where=f"{name}:{line.number}",
                event_id=refusal.event_id,
            )


def _examples(line: RawLine, name: str, task: Task, forgotten: Collection[str], turns: Turns) -> list[Example]:
    if line.problem is not None:
        raise Refused(line.problem, line.detail)
    value = parse_object(line.data)
    kind = _kind(value)
    try:
        if kind == "event":
            event = InteractionEvent.model_validate(value)
            if forgotten and device_digest(event.device_id) in forgotten:
                raise Refused("forgotten")
            return _from_event(event, name, task, turns)
        if kind == "multi-turn":
            return _from_messages(ChatRow.model_validate(value), name, task, turns)
        if (kind == "function" and task != "intent") or (kind == "intent" and task != "function_call"):
            row = (IntentRow if kind == "intent" else FunctionRow).model_validate(value)
            found = example_from_row(row, source=name)
            if task == found.task:
                return [found]
            accepts, slices = found.accepts, found.slices
            return [make_example("chat", found.messages, source=name, accepts=accepts, slices=slices)]
    except ValidationError as error:
        raise Refused("schema", explain_validation(error)) from None
    article = "an" if kind[0] in "aeiou" else "a"
    raise Refused(
        "format", f"{article} {kind} line, but the task is {task}" if kind != "unknown" else f"not {_FORMATS}"
    )


def _from_messages(row: ChatRow, name: str, task: Task, turns: Turns) -> list[Example]:
    if task == "intent":
        raise Refused("format", "a multi-turn line, but the task is intent")
    said = up_to_answer(task, row.messages)
    if said is None:
        raise Refused("no answer", "no assistant turn follows a user's")
    if task == "function_call" and not said[-1].tool_calls:
        raise Refused("no answer", "no turn calls a function")
    answer = make_example(task, said, source=name, checks=row.checks, accepts=row.accepts, slices=row.slices)
    if turns == "last":
        return [answer]
    return _each_turn(answer, row.messages)


def _from_event(event: InteractionEvent, name: str, task: Task, turns: Turns) -> list[Example]:
    if task != "chat":
        raise Refused("format", "an interaction event: `pocketloop data import` takes it into the log", event.event_id)
    if not event.consent.training:
        raise Refused("no consent", "consent.training is false", event.event_id)
    said = up_to_answer(task, event.messages)
    if said is None:
        raise Refused("no answer", "no assistant turn follows a user's", event.event_id)
    group = sha256_text(f"device:{event.device_id}")[:20]
    locale = safe_tag(event.locale).strip()
    slices: Slices = {"locale": locale} if locale else {}
    answer = make_example(task, said, source=name, group=group, event_ids=[event.event_id], slices=slices)
    return [answer] if turns == "last" else _each_turn(answer, event.messages)


def _each_turn(answer: Example, messages: list[Message]) -> list[Example]:
    """One example for each turn of the conversation; what is known of the answer itself stays with it."""
    dialogue = sha256_text(canonical_json([message.model_dump(mode="json") for message in messages]))[:20]
    found = []
    for said in every_answer(answer.task, messages):
        known = answer if said == answer.messages else None
        found.append(
            make_example(
                answer.task,
                said,
                source=answer.source,
                group=dialogue if answer.group == answer.example_id else answer.group,
                event_ids=answer.event_ids,
                checks=known.checks if known else None,
                accepts=known.accepts if known else None,
                slices=answer.slices,
                dialogue=dialogue,
            )
        )
    return found


def _kind(value: dict[str, Any]) -> str:
    """What the keys of a line say it is."""
    kinds = (
        ("event", {"event_id", "messages"}),
        ("multi-turn", {"messages"}),
        ("function", {"input", "function"}),
        ("intent", {"input", "output"}),
        ("preference", {"prompt", "chosen", "rejected"}),
    )
    return next((kind for kind, keys in kinds if keys <= value.keys()), "unknown")
