"""What a language model as judge costs beside the model: our own work for a question, and for one that was answered.

The server on this machine answers at once, so that only the asking is measured: the plain client sends the same
messages; the judge adds deadline, budget, cache, both orders and the check of each reply. The ratio carries over to
another machine. Asking again reads the cache.
"""

import argparse
import asyncio
import json
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pocketloop.contracts.events import Message
from pocketloop.contracts.loading import load_rubric
from pocketloop.contracts.recipe import Catalogue, JudgeEndpoint
from pocketloop.labeling.answer_cache import AnswerCache
from pocketloop.labeling.endpoint import Endpoint
from pocketloop.labeling.jury import Jury
from pocketloop.labeling.questions import Asker


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        schema = asked["response_format"]["json_schema"]["schema"]["properties"]
        word = {name: field["enum"][0] for name, field in schema.items()} | {"verdict": "right"}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": json.dumps(word)}}
        body = json.dumps({"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


def plain(url: str, asker: Asker, cases: list[tuple[list[Message], Message]]) -> None:
    """The client alone, one request after the other over the same connections."""
    import openai

    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            for prompt, answer in cases:
                for order in (0, 1):
                    question = asker.verdict(prompt, answer, order)
                    form = {"type": "json_schema", "json_schema": {"name": "reply", "schema": question.schema}}
                    await client.chat.completions.create(
                        model="m",
                        messages=question.messages,
                        response_format=form,
                    )

    asyncio.run(ask())


def judge(url: str, asker: Asker, cases: list[tuple[list[Message], Message]], cache: Path) -> None:
    with AnswerCache(cache) as answers:
        config = JudgeEndpoint(url=url, model="m", parallel=1, budget_tokens=10**9)
        jury = Jury(Endpoint(config, load_rubric("right_answer"), answers), asker)

        async def one(case: tuple[list[Message], Message]) -> None:
            await jury.judge(*case)

        jury.endpoint.run(one, cases)


def seconds(work: Any, *arguments: Any) -> float:
    """CPU seconds of this process, the server's threads included: both sides pay the same for it."""
    start = time.process_time()
    work(*arguments)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cases = [
        ([Message(role="user", content=f"play song {n} in the kitchen")], Message(role="assistant", content="music"))
        for n in range(arguments.answers)
    ]
    asker = Asker(load_rubric("right_answer"), Catalogue(labels=["music", "weather", "timer"]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    with tempfile.TemporaryDirectory() as folder:
        plain(url, asker, cases[:20])  # imports, connections
        judge(url, asker, cases[:20], Path(folder) / "warm")
        alone = seconds(plain, url, asker, cases)
        judged = seconds(judge, url, asker, cases, Path(folder) / "cache")
        again = seconds(judge, url, asker, cases, Path(folder) / "cache")
    server.shutdown()
    result = {
        "answers": len(cases),
        "client_ms_per_answer": round(1000 * alone / len(cases), 2),
        "judge_ms_per_answer": round(1000 * judged / len(cases), 2),
        "judge_over_client": round(judged / alone, 2),
        "known_ms_per_answer": round(1000 * again / len(cases), 3),
        "known_over_asked": round(again / judged, 3),
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{len(cases)} answers, each in both orders, CPU time with the server's own")
    print(f"  plain client   {result['client_ms_per_answer']:8} ms an answer")
    print(f"  judge          {result['judge_ms_per_answer']:8} ms an answer, {result['judge_over_client']} times that")
    print(f"  judged before  {result['known_ms_per_answer']:8} ms an answer, {result['known_over_asked']} of asking")


if __name__ == "__main__":
    main()
