"""OpenAI-compatible servers for tests: a real llama.cpp model behind a grammar, and one that misbehaves to order."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Request = dict[str, Any]


class JudgeServer:
    """Answers `POST /v1/chat/completions`; keeps what it was asked."""

    def __init__(self, respond: "Callable[[JudgeServer, Any, Request, int], None]") -> None:
        self.requests: list[Request] = []
        self.over = threading.Event()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.requests.append(body)
                    number = len(outer.requests)
                respond(outer, self, body, number)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> "JudgeServer":
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._http.shutdown()
        self._http.server_close()


def send(handler: Any, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def say(handler: Any, content: str, tokens: int = 100) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": tokens - 10, "completion_tokens": 10, "total_tokens": tokens}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    send(handler, 200, json.dumps(body).encode())


def choices_of(request: Request) -> dict[str, list[str]]:
    """The reply's fields and what each may be."""
    schema = request["response_format"]["json_schema"]["schema"]
    return {name: field["enum"] for name, field in schema["properties"].items()}


def case_of(request: Request) -> dict[str, Any]:
    return dict(json.loads(request["messages"][1]["content"]))


def reply(request: Request, **chosen: str) -> str:
    """A reply of the right form: the first of each field's values, or what is `chosen`."""
    return json.dumps({name: chosen.get(name, values[0]) for name, values in choices_of(request).items()})


def honest(request: Request) -> str:
    """Judges timers: right when the number of minutes is in the user's words; the better answer is the right one."""

    def right(answer: str) -> bool:
        call = json.loads(answer)
        return str(call["arguments"]["minutes"]) in case["conversation"][-1]["content"].split()

    case = case_of(request)
    if "answer" in case:
        word = "right" if right(case["answer"]) else "wrong"
        return reply(request, verdict=word, criterion="none" if word == "right" else "arguments")
    return reply(request, better="first" if right(case["first"]) >= right(case["second"]) else "second")


def honest_server() -> JudgeServer:
    return JudgeServer(lambda _, handler, request, number: say(handler, honest(request)))


@contextmanager
def llama_server(model: Path) -> Iterator[JudgeServer]:
    """llama.cpp with a GGUF model; a reply's JSON schema becomes the grammar that it samples from."""
    from llama_cpp import Llama

    llama = Llama(model_path=str(model), n_ctx=2048, n_threads=1, verbose=False)
    lock = threading.Lock()

    def respond(_: JudgeServer, handler: Any, request: Request, number: int) -> None:
        schema = request["response_format"]["json_schema"]["schema"]
        with lock:
            answer = llama.create_chat_completion(
                messages=request["messages"],
                response_format={"type": "json_object", "schema": schema},
                temperature=request["temperature"],
                seed=request["seed"],
                max_tokens=request["max_tokens"],
            )
        send(handler, 200, json.dumps(answer).encode())

    try:
        with JudgeServer(respond) as server:
            yield server
    finally:
        llama.close()


def stall(server: JudgeServer, handler: Any, request: Request, number: int) -> None:
    server.over.wait(300)


def drip(server: JudgeServer, handler: Any, request: Request, number: int) -> None:
    """One byte at a time: a client that waits for the next byte waits for ever."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not server.over.is_set():
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.02)


def drop(server: JudgeServer, handler: Any, request: Request, number: int) -> None:
    handler.close_connection = True
    handler.connection.close()


def cut(server: JudgeServer, handler: Any, request: Request, number: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def fail(server: JudgeServer, handler: Any, request: Request, number: int) -> None:
    send(handler, 500, b'{"error": {"message": "out of memory"}}')


def html(server: JudgeServer, handler: Any, request: Request, number: int) -> None:
    send(handler, 200, b"<html>welcome</html>", Content_Type="text/html")


def nothing(server: JudgeServer, handler: Any, request: Request, number: int) -> None:
    send(handler, 200, b'{"choices": [], "usage": null}')


def says(content: Callable[[Request], str]) -> Callable[[JudgeServer, Any, Request, int], None]:
    return lambda server, handler, request, number: say(handler, content(request))


LIES = {
    "prose": says(lambda request: "The answer is right."),
    "half": says(lambda request: reply(request)[:-4]),
    "another verdict": says(lambda request: reply(request, verdict="excellent")),
    "another id": says(lambda request: reply(request, id="00000000")),
    "more than asked": says(lambda request: reply(request)[:-1] + ', "note": "trust me"}'),
    "a list": says(lambda request: f"[{reply(request)}]"),
    "deep": says(lambda request: "[" * 100_000),
    "nothing": nothing,
    "a page": html,
}
FAULTS = {"stalls": stall, "drips": drip, "drops": drop, "cuts": cut, "fails": fail}
