"""Serving an app beside other work: in a thread, on a free port, until the block ends."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

_BACKLOG = 2048
_KEPT_ALIVE_SECONDS = 75  # after uvicorn's own 5, a phone that waited for a look asks just as its connection is closed
_PATIENCE = 120.0  # seconds; starting takes milliseconds, on a busy machine more


@contextmanager
def running(app: Any, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve an ASGI app in a thread and yield its address (`http://127.0.0.1:PORT`); port 0 takes a free one.

    The app's lifespan runs as under a real server. When the block ends, requests in flight get a second to finish.

    Raises:
        OSError: the port is taken.
        RuntimeError: the app did not start.
    """
    listener = socket.create_server((host, port), backlog=_BACKLOG)
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEPT_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
        ws="none",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=_serve, args=(server, listener), name="serving", daemon=True)
    thread.start()
    try:
        waiting = threading.Event()
        for _ in range(int(_PATIENCE / 0.01)):
            if server.started or not thread.is_alive():
                break
            waiting.wait(0.01)
        if not server.started:
            raise RuntimeError("the app did not start; its own error stands above")
        yield f"http://{host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(_PATIENCE)
        listener.close()


def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    with suppress(SystemExit):  # a failed start, which is logged; `running` sees that nothing started
        server.run(sockets=[listener])
