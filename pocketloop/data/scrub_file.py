"""Scrubbing a file of events or examples: every record keeps its format, what is unclear stays out and is counted.

Events of one device are scrubbed together, wherever they stand in the file. An example row belongs to nobody in
particular, so each is scrubbed as if it were a person's only record.
"""

import gzip
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ValidationError

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.examples import ChatRow, FunctionRow, IntentRow
from pocketloop.contracts.files import atomic_file, read_jsonl
from pocketloop.contracts.reports import LeakAudit, ScrubReport, StageCount
from pocketloop.data.lines import open_raw, read_lines
from pocketloop.data.parsing import Refused, explain_validation, parse_object
from pocketloop.privacy.report import write_page
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.shards import scrub_shards
from pocketloop.privacy.sources import FolderShards

SHARD = 500
FORMATS = (
    'interaction/1 events, {"input", "output"}, {"input", "function", "arguments"} or {"messages": [...]}, one a line'
)
_ROWS: dict[str, tuple[set[str], type[BaseModel]]] = {
    "chat": ({"messages"}, ChatRow),
    "function": ({"input", "function"}, FunctionRow),
    "intent": ({"input", "output"}, IntentRow),
}


def scrub_file(
    file: str, out: Path, scrubber: Scrubber, *, page: Path | None = None, audit: LeakAudit | None = None
) -> ScrubReport:
    """Scrub JSON lines from `file` into `out`, in bounded memory.

    An event stays an `interaction/1` event whose device id is a pseudonym; of an example row only the keys of its
    format are kept. What cannot be read or scrubbed with confidence is left out.

    Args:
        file: JSON lines, plain or gzip; `-` reads standard input. What it holds is told by its first record.
        out: written whole or not at all, compressed if its name ends in `.gz`.
        page: where to write the report as a page.
        audit: the scrubber's figures on labelled text, for report and page.

    Raises:
        DataError: there is no such file, or no record in it is of a known format.
    """
    left_out: Counter[str] = Counter()
    out.parent.mkdir(parents=True, exist_ok=True)
    # The folder is 0700: raw text and raw values lie in it while this runs.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
        raw, scrubbed = Path(work) / "raw", Path(work) / "scrubbed"
        raw.mkdir()
        holds = _cut(file, raw, left_out)
        if holds is None:
            reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "it is empty"
            raise DataError(f"{file}: no record that can be scrubbed ({reasons}); known formats: {FORMATS}")
        shown = _as_event if holds == "events" else _as_row
        source = FolderShards(raw)
        report = scrub_shards(source, scrubbed, scrubber, Path(work) / "cache", audit=audit)
        with _writing(out) as lines:
            for name in source.names():
                for record in read_jsonl(scrubbed / f"{name}.jsonl"):
                    lines.write(json.dumps(shown(record), ensure_ascii=False) + "\n")
    left_out.update(report.count.left_out)
    kept = report.count.kept
    count = StageCount(
        stage="scrub", entered=kept + sum(left_out.values()), kept=kept, left_out=dict(sorted(left_out.items()))
    )
    report = report.model_copy(update={"count": count})
    if page:
        write_page(page, report)
    return report


def _cut(file: str, folder: Path, left_out: Counter[str]) -> Literal["events", "rows"] | None:
    """Write what can be read into shards of events; returns what it was, `None` for nothing."""
    count = 0
    holds: Literal["events", "rows"] | None = None
    with open_raw(file) as raw, ExitStack() as last:
        for line in read_lines(raw):
            if line.problem is None and not line.data.strip():
                continue
            try:
                if line.problem is not None:
                    raise Refused(line.problem, line.detail)
                value = parse_object(line.data)
                holds = holds or ("events" if "event_id" in value else "rows")
                event = _event(value) if holds == "events" else _row(value, line.number)
            except Refused as refusal:
                left_out[refusal.reason] += 1
                continue
            if count % SHARD == 0:
                last.close()
                shard = last.enter_context(open(folder / f"{count // SHARD:08}.jsonl", "w", encoding="utf-8"))
            shard.write(json.dumps(event) + "\n")
            count += 1
    return holds if count else None


def _event(value: dict[str, Any]) -> dict[str, Any]:
    if "event_id" not in value:
        raise Refused("format")
    return value


def _row(value: dict[str, Any], number: int) -> dict[str, Any]:
    """An example row in an event's clothes."""
    kind = next((kind for kind, (keys, _) in _ROWS.items() if keys <= value.keys()), None)
    if kind is None:
        raise Refused("format")
    try:
        row = _ROWS[kind][1].model_validate(value)
    except ValidationError as error:
        raise Refused("schema", explain_validation(error)) from None
    return {
        "event_id": f"row-{number}",
        "device_id": f"row-{number}",
        "ts": "1970-01-01T00:00:00Z",
        "adapter": {"skill": f"row:{kind}"},
        "consent": {"training": True, "policy": "none"},
        "messages": _messages(row),
    }


def _messages(row: BaseModel) -> list[dict[str, Any]]:
    if isinstance(row, ChatRow):
        return [message.model_dump(mode="json") for message in row.messages]
    said = row.model_dump(mode="json")
    if isinstance(row, FunctionRow):
        calls = [{"name": row.function, "arguments": said["arguments"]}]
        return [{"role": "user", "content": row.input}, {"role": "assistant", "tool_calls": calls}]
    return [{"role": "user", "content": said["input"]}, {"role": "assistant", "content": said["output"]}]


def _as_event(record: dict[str, Any]) -> dict[str, Any]:
    """A scrubbed event as a phone would post it, its device's pseudonym in the place of the device."""
    kept = {key: part for key, part in record.items() if key not in ("group", "found")}
    return {"schema": "interaction/1", "device_id": record["group"], **kept}


def _as_row(record: dict[str, Any]) -> dict[str, Any]:
    """A scrubbed row in the format that it came in."""
    messages, kind = record["messages"], record["adapter"]["skill"].removeprefix("row:")
    if kind == "intent":
        return {"input": messages[0]["content"], "output": messages[1]["content"]}
    if kind == "function":
        (call,) = messages[1]["tool_calls"]
        return {"input": messages[0]["content"], "function": call["name"], "arguments": call["arguments"]}
    return {"messages": [{key: part for key, part in m.items() if key != "tool_calls" or part} for m in messages]}


@contextmanager
def _writing(path: Path) -> Iterator[IO[str]]:
    """A text file, plain or gzip by its name, that is there whole or not at all."""
    with atomic_file(path) as temporary, ExitStack() as stack:
        if path.name.endswith(".gz"):
            binary = stack.enter_context(open(temporary, "wb"))
            # Without a name and a time in it, the same records give the same bytes.
            zipped = stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=binary, mtime=0))
            yield stack.enter_context(io.TextIOWrapper(zipped, encoding="utf-8"))
        else:
            yield stack.enter_context(open(temporary, "w", encoding="utf-8"))
