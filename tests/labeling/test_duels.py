"""A judge compares two answers in both orders."""

import json
from typing import Any

from pocketloop.contracts.events import Message
from pocketloop.contracts.labels import Duel, Preferred
from pocketloop.contracts.loading import load_rubric
from pocketloop.contracts.recipe import JudgeEndpoint
from pocketloop.labeling.answer_cache import AnswerCache
from pocketloop.labeling.duels import judge_duels
from tests.labeling.judge_servers import JudgeServer, Request, say


def judge(server: JudgeServer, handler: Any, request: Request, number: int) -> None:
    """Prefers answers that say `good`; between two that do not, the one that it sees first; mute about `mute`."""
    case = json.loads(request["messages"][-1]["content"])
    better = "second" if "good" in case["second"] else "first"
    say(
        handler,
        "no idea" if "mute" in case["first"] + case["second"] else json.dumps({"id": case["id"], "better": better}),
    )


def duel(ours: str, theirs: str) -> Duel:
    return Duel(
        [Message(role="user", content="Hi")],
        Message(role="assistant", content=ours),
        Message(role="assistant", content=theirs),
    )


def test_each_pair_is_asked_in_both_orders_and_an_unusable_reply_is_no_verdict() -> None:
    asked = [duel("good", "bad"), duel("bad", "good"), duel("bad", "worse"), duel("mute", "bad")]
    with JudgeServer(judge) as server, AnswerCache(None) as answers:
        config = JudgeEndpoint(url=server.url, model="m", rubric="helpful_answer", attempts=1)
        found, use = judge_duels(asked, config, load_rubric("helpful_answer"), None, answers)
        again, cached = judge_duels(asked[:3], config, load_rubric("helpful_answer"), None, answers)
    assert found == [Preferred(True, True), Preferred(False, False), Preferred(True, False), None]
    assert (use.asked, use.inconsistent, use.failed) == (4, 1, 1)
    assert again == found[:3] and cached.cached == 3
