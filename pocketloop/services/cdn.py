"""The signed repository over HTTP, for development: what a CDN in front of the folder would do.

Only `timestamp.json` ever changes, so it is revalidated each time, and everything else may be kept for a year. A name
that does not exist yet (a device asks for the next root) must not be remembered as absent: 404s are revalidated too,
and are real 404s, since a page that answers 200 to everything looks like a captive portal to a device.

Small files go out in one piece without leaving the event loop: nearly all requests of a fleet are for metadata of a few
kilobytes, and a thread for each costs more than the read. Ranges and large files are Starlette's to send.
"""

import mimetypes
import os
import stat
from email.utils import formatdate, parsedate
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pocketloop.contracts.errors import DeliveryError

_IMMUTABLE = "public, max-age=31536000, immutable"
_REVALIDATE = "no-cache"
_SMALL = 1 << 18  # bytes that are read at once


def create_app(root: Path) -> ASGIApp:
    """An ASGI app for the files under `root`: GET and HEAD, conditional and range requests.

    Hidden files (what a publisher is still writing), folders, and what a link leads to outside of `root` do not exist.
    """
    folder = os.path.realpath(root)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"this app speaks HTTP only, not {scope['type']}")
        await _respond(folder, scope)(scope, receive, send)

    return app


def serve(root: Path, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Serve the files under `root` until interrupted.

    Raises:
        DeliveryError: there is no such folder.
    """
    import uvicorn

    if not root.is_dir():
        raise DeliveryError(f"{root}: no such folder; `pocketloop cdn init` makes the repository")
    uvicorn.run(create_app(root), host=host, port=port, log_level="warning", access_log=False, ws="none")


def _respond(folder: str, scope: Scope) -> Response:
    if scope["method"] not in ("GET", "HEAD"):
        return PlainTextResponse("only GET and HEAD\n", 405, {"allow": "GET, HEAD"})
    path = _locate(folder, scope["path"])
    if path is None:
        return _absent()
    try:
        # Opened before it is measured: a file that is replaced meanwhile is served as it was, not half of each.
        with open(path, "rb", buffering=0) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                return _absent()
            return _file(path, facts, file, Headers(scope=scope))
    except OSError:
        return _absent()


def _locate(folder: str, name: str) -> str | None:
    """The real path of a requested name, or None where it must not or cannot lead to a file."""
    parts = name.removeprefix("/").split("/")
    if any(not part or part.startswith(".") or "\0" in part for part in parts):
        return None
    path = os.path.realpath(os.path.join(folder, *parts))  # noqa: PTH118
    return path if path.startswith(folder + os.sep) else None


def _file(path: str, facts: os.stat_result, file: Any, asked: Headers) -> Response:
    tag = f'"{facts.st_ino:x}-{facts.st_mtime_ns:x}-{facts.st_size:x}"'
    headers = {
        "cache-control": _REVALIDATE if path.endswith(f"{os.sep}timestamp.json") else _IMMUTABLE,
        "etag": tag,
        "last-modified": formatdate(facts.st_mtime, usegmt=True),
        "accept-ranges": "bytes",
    }
    if _unchanged(asked, tag, facts.st_mtime):
        return Response(status_code=304, headers=headers)
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    if "range" in asked or facts.st_size > _SMALL:
        return FileResponse(path, headers=headers, media_type=kind, stat_result=facts)
    return Response(file.read(), headers=headers, media_type=kind)


def _unchanged(asked: Headers, tag: str, modified: float) -> bool:
    """Whether the client's copy is current; a tag outranks a date (RFC 9110, 13.2.2)."""
    tags = asked.get("if-none-match")
    if tags is not None:
        return tags.strip() == "*" or tag in [one.strip().removeprefix("W/") for one in tags.split(",")]
    since = parsedate(asked.get("if-modified-since", ""))
    since_known = parsedate(formatdate(modified, usegmt=True))
    return since is not None and since_known is not None and since >= since_known


def _absent() -> Response:
    return PlainTextResponse("not found\n", 404, {"cache-control": _REVALIDATE})
