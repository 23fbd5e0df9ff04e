"""The hardened MLflow server: basic-auth, the roles of this project, and an audit line for every change.

MLflow finds this module through the entry point `mlflow.app` (`--app-name pocketloop`) and serves what `create_app`
gives. MLflow calls both that hook and its account store experimental: mlflow is pinned for them.
"""

import base64
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Response, g, make_response, request
from mlflow.exceptions import MlflowException
from mlflow.server import app as flask_app
from mlflow.server import auth
from mlflow.server.handlers import _get_model_registry_store
from starlette.responses import PlainTextResponse

from pocketloop.contracts.home import Home
from pocketloop.registry.access import PIPELINE, REVIEWER, TRAINER, WORKSPACE

_RELEASED = ".released"
_ASSISTANT = "/mlflow/assistant"
_MOST_BODY = 1 << 16
"""Bytes of a body that are looked at for names; what creates a version is far smaller."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def create_app() -> "Audit":
    """The application: MLflow with accounts, roles that follow the models, and the audit around it all."""
    roles = Roles()
    flask_app.before_request(roles.follow)
    served = auth.create_app(flask_app)
    flask_app.before_request(roles.guard)  # after basic-auth, which knows who asks
    roles.open()
    return Audit(served, Home().audit)


class Roles:
    """The roles of this project in MLflow's account store, and what each may write."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self.given: set[str] = set()
        """Adapters whose models were given to the roles by this process."""

    def open(self) -> None:
        """Create the roles that are new, and give them the models that exist."""
        said = {
            TRAINER: "Writes candidates and experiments.",
            REVIEWER: "Approves: may write released models, and nothing else.",
            PIPELINE: "Owns candidates and released models.",
        }
        for name, text in said.items():
            with suppress(MlflowException):  # it exists, or another worker was faster
                auth.store.create_role(name, WORKSPACE, text)
        self.ids = {role.name: role.id for role in auth.store.list_roles([WORKSPACE]) if role.name in said}
        self._grant(TRAINER, "experiment", "*", "EDIT")
        self._grant(PIPELINE, "experiment", "*", "MANAGE")
        for model in _get_model_registry_store().search_registered_models(max_results=1000):
            self._give(model.name)

    def follow(self) -> None:
        """Before a change to a model: a pipeline may have created it in the store itself since `open`."""
        if request.method == "GET" or not request.is_json:
            return
        body = request.get_json(silent=True)
        name = body.get("name") if isinstance(body, dict) else None
        if isinstance(name, str):
            self._give(name)

    def guard(self) -> Response | None:
        """Whoever creates a model owns it in MLflow: only pipelines may create a released one, or rename one so."""
        action = request.path.rsplit("/", 1)[-1]
        if "/registered-models/" not in request.path or action not in ("create", "rename"):
            return None
        body = request.get_json(force=True, silent=True) or {}
        name = str(body.get("name" if action == "create" else "new_name", ""))
        if not name.endswith(_RELEASED) or auth.sender_is_admin() or _exists(name):
            return None  # of one that exists, MLflow itself says so
        user = auth.store.get_user(g.mlflow_authenticated_user)
        if any(role.name == PIPELINE for role in auth.store.list_user_roles(user.id)):
            return None
        return make_response("Permission denied: only pipelines create released models", 403)

    def _give(self, model: str) -> None:
        """Candidates belong to trainers, what is released to reviewers, both to the pipelines."""
        adapter = model.removesuffix(_RELEASED)
        if adapter in self.given or not _exists(adapter + _RELEASED):
            return
        self._grant(TRAINER, "registered_model", adapter, "EDIT")
        self._grant(REVIEWER, "registered_model", adapter + _RELEASED, "EDIT")
        for name in (adapter, adapter + _RELEASED):
            self._grant(PIPELINE, "registered_model", name, "MANAGE")
        self.given.add(adapter)

    def _grant(self, role: str, kind: str, name: str, permission: str) -> None:
        with suppress(MlflowException):  # it has it already
            auth.store.add_role_permission(self.ids[role], kind, name, permission)


def _exists(model: str) -> bool:
    try:
        _get_model_registry_store().get_registered_model(model)
    except MlflowException:
        return False
    return True


class Audit:
    """Writes who changed what and when, one JSON line each: never a body, a password or a query.

    It also keeps MLflow's assistant shut. That one runs commands on the server for whoever comes from this machine, and
    behind a tunnel or a proxy everybody does.
    """

    def __init__(self, app: Any, path: Path) -> None:
        self.app = app
        self.path = path

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on; its line is written before the end of the answer is sent."""
        if scope["type"] == "http" and _ASSISTANT in scope["path"]:
            await PlainTextResponse("the assistant is off", 403)(scope, receive, send)
            return
        if scope["type"] != "http" or not _changes(scope["method"], scope["path"]):
            await self.app(scope, receive, send)
            return
        asked, answered, status = bytearray(), bytearray(), 500
        # The newest part of the answer waits: with its length known, a client has it all before the empty last part.
        held: list[Message] = []

        async def listen() -> Message:
            message = await receive()
            _keep(asked, message)
            return message

        async def speak(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            _keep(answered, message)
            if message.get("more_body", True):
                while held:
                    await send(held.pop(0))
            held.append(message)

        try:
            await self.app(scope, listen, speak)
        finally:
            self._write(scope, _json(asked), _json(answered), status)
            for last in held:
                await send(last)

    def _write(self, scope: Message, asked: dict[str, Any], answered: dict[str, Any], status: int) -> None:
        made = answered.get("model_version")
        version = asked.get("version") or (made.get("version") if isinstance(made, dict) else None)
        headers = dict(scope["headers"])
        line = {
            "ts": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "user": "" if status == 401 else _user(headers.get(b"authorization", b"")),
            "method": scope["method"],
            "path": scope["path"],
            "model": _short(asked.get("name")),
            "version": _short(version),
            "source": _short(asked.get("source")),
            "status": status,
        }
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, json.dumps(line).encode() + b"\n")
        finally:
            os.close(handle)


def _changes(method: str, path: str) -> bool:
    """Whether a request may change something: MLflow also searches by POST, and its pages report how they are used."""
    if method in ("GET", "HEAD", "OPTIONS"):
        return False
    action = path.rsplit("/", 1)[-1]
    return not (action.startswith(("search", "get-")) or action in ("graphql", "ui-telemetry", "batch-get"))


def _keep(kept: bytearray, message: Message) -> None:
    if len(kept) < _MOST_BODY:
        kept.extend(message.get("body", b"")[:_MOST_BODY])


def _json(body: bytearray) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _user(header: bytes) -> str:
    """The name in a Basic authorization header; MLflow has checked its password by then."""
    try:
        return base64.b64decode(header.partition(b" ")[2]).decode().partition(":")[0][:256]
    except ValueError:
        return ""


def _short(value: Any) -> str:
    return str(value)[:512] if isinstance(value, str | int) else ""
