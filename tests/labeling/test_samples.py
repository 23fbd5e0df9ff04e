import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from judge_servers import JudgeServer, honest, honest_server, reply, say

from pocketloop.contracts.events import Conversation, Message
from pocketloop.contracts.files import read_jsonl, write_jsonl
from pocketloop.contracts.labels import Rubric
from pocketloop.contracts.loading import load_rubric
from pocketloop.contracts.recipe import Catalogue, JudgeEndpoint, Recipe
from pocketloop.labeling.answer_cache import AnswerCache
from pocketloop.labeling.endpoint import Endpoint
from pocketloop.labeling.extract import EventFiles
from pocketloop.labeling.jury import Jury
from pocketloop.labeling.label import label
from pocketloop.labeling.questions import Asker
from pocketloop.labeling.samples import Sampled, llama_sampler, prompts_to_sample, rank_samples, sample_answers
from pocketloop.tasks.forms import FormChecker
from pocketloop.tasks.tasks import TaskSpec

Events = Callable[..., dict[str, Any]]


def timer(minutes: Any) -> str:
    return json.dumps({"function": "set_timer", "arguments": {"minutes": minutes}})


def drawn(*texts: str) -> Callable[[Sequence[Conversation], int], list[list[str]]]:
    return lambda conversations, count: [list(texts[:count])] * len(conversations)


@pytest.fixture
def five_minutes(tmp_path: Path, make_event: Events) -> EventFiles:
    said = [{"role": "user", "content": "5 minutes"}, {"role": "assistant", "content": "Fine."}]
    write_jsonl(tmp_path / "events-1.jsonl", [make_event(1, said)])
    return EventFiles(tmp_path, "function_call")


def rank(tmp_path: Path, functions: Catalogue, url: str, sampled: list[Sampled]) -> list[tuple[Any, Any]]:
    write_jsonl(tmp_path / "samples.jsonl", sampled)
    rubric: Rubric = load_rubric("right_answer")
    with AnswerCache(None) as cache:
        jury = Jury(
            Endpoint(JudgeEndpoint(url=url, model="m", samples=1), rubric, cache),
            Asker(rubric, functions),
        )
        pairs = list(rank_samples(tmp_path / "samples.jsonl", jury, FormChecker("function_call", functions)))
    assert all((pair.reason, pair.event_ids, pair.group) == ("judge", ["e1"], "g-1") for pair in pairs)
    return [(pair.chosen.tool_calls, pair.rejected.tool_calls) for pair in pairs]


def minutes(pairs: list[tuple[Any, Any]]) -> list[tuple[int, int]]:
    return [(a[0].arguments["minutes"], b[0].arguments["minutes"]) for a, b in pairs]


def test_the_answer_that_wins_each_comparison_is_preferred_to_the_one_that_loses_each(
    tmp_path: Path, functions: Catalogue, five_minutes: EventFiles
) -> None:
    task = TaskSpec("function_call", functions)
    candidates = prompts_to_sample(five_minutes, 10)
    (sampled,) = sample_answers(candidates, task, "function_call", drawn(timer(50), timer(5), timer(5)), 3)
    assert len(sampled.answers) == 2, "the same answer is not compared with itself"
    with honest_server() as server:
        assert minutes(rank(tmp_path, functions, server.url, [sampled])) == [(5, 50)]
        assert len(server.requests) == 2
    with JudgeServer(lambda _, handler, request, number: say(handler, reply(request))) as server:
        assert rank(tmp_path, functions, server.url, [sampled]) == [], "whoever is shown first is no better for it"


def test_an_answer_of_wrong_form_is_worst_without_a_question(
    tmp_path: Path, functions: Catalogue, five_minutes: EventFiles
) -> None:
    task = TaskSpec("function_call", functions)
    candidates = prompts_to_sample(five_minutes, 10)
    sampled = sample_answers(candidates, task, "function_call", drawn(timer(5), timer("five")), 2)
    with honest_server() as server:
        assert minutes(rank(tmp_path, functions, server.url, sampled)) == [(5, "five")]
        assert server.requests == []
        assert sample_answers(candidates, task, "function_call", drawn(timer(5), timer(5)), 2) == []
        unsound = sample_answers(candidates, task, "function_call", drawn("Sure", timer("five")), 2)
        assert rank(tmp_path, functions, server.url, unsound) == []


def test_ranked_samples_stand_beside_the_pairs_that_people_made(
    tmp_path: Path, functions: Catalogue, five_minutes: EventFiles
) -> None:
    write_jsonl(tmp_path / "examples.jsonl", [])
    write_jsonl(tmp_path / "quarantine.jsonl", [])
    call = {"name": "set_timer", "arguments": {"minutes": 5}}
    (event,) = read_jsonl(tmp_path / "events-1.jsonl")
    write_jsonl(tmp_path / "events-1.jsonl", [{**event, "feedback": {"correction": {"tool_calls": [call]}}}])
    prompt = [Message(role="user", content="5 minutes")]
    answers = [Message(role="assistant", tool_calls=[{**call, "arguments": {"minutes": n}}]) for n in (7, 5, 6)]
    sampled = Sampled(event_id="e1", group="g-1", source="s", task="function_call", prompt=prompt, answers=answers)
    write_jsonl(tmp_path / "samples.jsonl", [sampled])
    with JudgeServer(lambda _, handler, request, number: say(handler, honest(request))) as server:
        recipe = Recipe.model_validate(
            {
                "adapter": "a",
                "task": "function_call",
                "base": "tiny",
                "catalogue": "c.json",
                "data": {"sources": [{"kind": "events", "skill": "functions"}]},
                "label": {"llm": {"url": server.url, "model": "m"}, "pairs": {"samples": 3}},
            }
        )
        report = label(tmp_path, recipe, functions, tmp_path / "out", samples=tmp_path / "samples.jsonl")
    assert report.judge == "verifier" and report.use is not None and report.use.asked == 1
    assert report.pairs == {"correction": 1, "judge": 1}
    judged = [row for row in read_jsonl(tmp_path / "out" / "pairs.jsonl") if row["reason"] == "judge"]
    assert judged[0]["chosen"]["tool_calls"][0]["arguments"] == {"minutes": 5}


@pytest.mark.slow
def test_a_real_models_samples_differ_and_come_out_the_same_again(tmp_path: Path) -> None:
    from pocketloop.export.gguf_model import convert_model
    from pocketloop.models.llama_cpp import LlamaCppGenerator

    base = Path(__file__).resolve().parents[2] / "configs" / "bases" / "tiny"
    convert_model(base, tmp_path / "tiny.gguf")
    asked: list[Conversation] = [[{"role": "user", "content": f"Tell me about {word}"}] for word in ("rain", "tea")]
    with LlamaCppGenerator(tmp_path / "tiny.gguf", base, context=256, parallel=2) as model:
        sampler = llama_sampler(model, 12, None)
        first, again = sampler(asked, 4), sampler(asked, 4)
        greedy = [one.text for one in model.generate(asked, 12)]
    assert first == again
    assert [answers[0] for answers in first] == greedy
    assert all(len(set(answers)) > 1 for answers in first)
