"""What `/openapi.json` says of the two routes; their bodies are read as bytes, so nothing of it follows from code."""

from typing import Any, Literal

from fastapi import Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field

from pocketloop.contracts.delivery import TelemetryReport
from pocketloop.contracts.events import InteractionEvent


class Problem(BaseModel):
    """Why a request was refused as a whole."""

    detail: str


class LineAnswer(BaseModel):
    """What became of a line."""

    line: int = Field(ge=1)
    status: Literal["accepted", "duplicate", "rejected"]
    reason: str | None = None
    detail: str | None = None


class EventsAnswer(BaseModel):
    """What became of a post of events: every line that is not blank is counted once."""

    accepted: int
    duplicates: int
    rejected: int
    lines: list[LineAnswer]


class ReportProblem(BaseModel):
    """A refused telemetry report, by its place in the array."""

    index: int
    field: str
    problem: str


class ReportsAnswer(BaseModel):
    """What became of a post of telemetry reports."""

    accepted: int
    duplicates: int
    rejected: list[ReportProblem] = []


_RETRY = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema with everything that it refers to inside, as a part of a larger document needs it."""
    schema = model.model_json_schema(by_alias=True, ref_template="{model}")
    definitions = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            return inlined(definitions[value["$ref"]]) if "$ref" in value else {k: inlined(v) for k, v in value.items()}
        return [inlined(item) for item in value] if isinstance(value, list) else value

    return dict(inlined(schema))


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {kind: {"schema": schema} for kind, schema in content.items()}}


_EVENT_LINES = {"type": "array", "items": _schema(InteractionEvent), "description": "One object a line."}
_REPORT = _schema(TelemetryReport)

EVENTS: dict[str, Any] = {
    "summary": "Post interaction/1 events, one JSON object a line, plain or gzip",
    "response_model": EventsAnswer,
    "responses": {
        400: {"model": Problem, "description": "The compressed data is damaged, or the request is malformed."},
        401: {"model": Problem, "description": "No valid app token."},
        413: {"model": Problem, "description": "Too much for one post; nothing of it was kept."},
        415: {"model": Problem, "description": "Another type or encoding than JSON lines and gzip."},
        429: {"model": Problem, "description": "Too much waits; post the same again later.", "headers": _RETRY},
        503: {"model": Problem, "description": "The disk refuses; post the same again later.", "headers": _RETRY},
    },
    "operation_id": "post_events",
    "dependencies": [Security(HTTPBearer(scheme_name="AppToken", auto_error=False))],
    "openapi_extra": {"requestBody": _body({"application/x-ndjson": _EVENT_LINES})},
}

TELEMETRY: dict[str, Any] = {
    "summary": "Post one telemetry/1 report, or an array of them",
    "operation_id": "post_telemetry",
    "status_code": 202,
    "response_model": ReportsAnswer,
    "responses": {
        400: {"model": Problem, "description": "Not JSON."},
        413: {"model": Problem, "description": "Too much for one post; nothing of it was kept."},
        422: {"model": ReportsAnswer, "description": "Some were refused; all others are kept."},
        503: {"model": Problem, "description": "The disk refuses; post the same again later.", "headers": _RETRY},
    },
    "openapi_extra": {
        "requestBody": _body({"application/json": {"anyOf": [_REPORT, {"type": "array", "items": _REPORT}]}})
    },
}
