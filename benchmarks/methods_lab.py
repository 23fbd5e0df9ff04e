"""What the experiments of `methods.py` share: one task and its data, trainings that are kept, and what is measured.

Every training and every measurement is a folder under `.pocketloop/methods`, named by the digest of its settings, its
data and the code behind it, so that a killed run goes on and an unchanged experiment costs nothing.
"""

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, PreferencePair, RatedAnswer
from pocketloop.contracts.files import canonical_json, sha256_file, sha256_text, sha256_tree, write_json
from pocketloop.contracts.home import project_root
from pocketloop.contracts.loading import load_base_config, load_catalogue, load_recipe
from pocketloop.contracts.reports import TrainReport
from pocketloop.contracts.training import Stage, TrainConfig
from pocketloop.data.demo.events import demo_events
from pocketloop.data.example_files import read_examples
from pocketloop.labeling.pairs import make_pair
from pocketloop.models.bases import load_base, load_with_adapter
from pocketloop.models.chat import encode_prompt, stop_ids
from pocketloop.models.generators import TransformersGenerator
from pocketloop.tasks.answers import write_answer
from pocketloop.tasks.tasks import Scores, TaskSpec
from pocketloop.training.logprobs import answer_log_probs
from pocketloop.training.preference_data import encode_answer
from pocketloop.training.reward import load_reward_model
from pocketloop.training.rewards import verifier
from pocketloop.training.run import train_adapter
from pocketloop.training.stage import Split, TrainingData
from pocketloop.training.tokens import SequenceEncoder

_SIZES = {"functions": (1200, 800, 300), "intent": (800, 400, 600)}
"""Examples that the SFT start learns, further ones of which the methods use the prompts, and held-out ones."""
_CORRECTIONS = 100
_LONGEST = 96
_BATCH = 50
_ROOMS = ("training", "models", "tasks")


@dataclass(frozen=True)
class Trained:
    """An adapter, how its training went, and the processor seconds that this took."""

    folder: Path
    work: Path
    report: TrainReport
    seconds: float


class Sampled(BaseModel):
    """One answer drawn at temperature 1: what it is worth, and log p - log q against the reference (nats)."""

    reward: float
    divergence: float


class Lab:
    """A task of the demo on the base `tiny`; `any_code` takes results of other versions of the code."""

    def __init__(self, folder: Path, adapter: Literal["functions", "intent"], any_code: bool = False) -> None:
        self.folder = folder
        self.adapter = adapter
        self.sizes = _SIZES[adapter]
        self.base = load_base_config("tiny")
        recipe = load_recipe(adapter)
        self.task = TaskSpec.of(recipe, load_catalogue(recipe))
        self.any_code = any_code
        self.reused = 0
        self._open: tuple[Path | None, Any, Any] | None = None

    @cached_property
    def pool(self) -> list[Example]:
        """Examples to learn from, the labelled ones first."""
        wanted = self.sizes[0] + self.sizes[1]
        return read_examples(f"demo://{self.adapter}?split=train&n={wanted}&seed=3", self.task.name)[0]

    @cached_property
    def labelled(self) -> list[Example]:
        """What the SFT start learns."""
        return self.pool[: self.sizes[0]]

    @cached_property
    def prompts(self) -> list[Example]:
        """Examples that the SFT start has not seen."""
        return self.pool[self.sizes[0] :]

    @cached_property
    def held_out(self) -> list[Example]:
        """Templates and values that nothing here learns from."""
        return read_examples(f"demo://{self.adapter}?split=heldout&n={self.sizes[2]}&seed=11", self.task.name)[0]

    @cached_property
    def corrections(self) -> list[PreferencePair]:
        """Answers that the demo's people corrected."""
        pairs = []
        for event in demo_events(40 * _CORRECTIONS, seed=5):
            corrected = (event.get("feedback") or {}).get("correction")
            if (event.get("adapter") or {}).get("skill") != self.adapter or not isinstance(corrected, dict):
                continue
            *prompt, given = [Message.model_validate(turn) for turn in event["messages"]]
            right = Message.model_validate({"role": "assistant", **corrected})
            pairs.append(
                make_pair(prompt, right, given, task="function_call", reason="correction", source="demo", group="demo")
            )
        return pairs[:_CORRECTIONS]

    def train(self, name: str, training: TrainConfig, train: Split, start: Trained | None = None) -> Trained:
        """Train as the recipe's section `training` says, or take what an earlier run left."""
        rows = [row.model_dump_json() for row in (*train.examples, *train.pairs, *train.rated)]
        begun = sha256_tree(start.folder) if start else ""
        folder = self._place(name, [training.model_dump(mode="json"), sha256_text("\n".join(rows)), begun])
        out, done = folder / "adapter", folder / "report.json"
        if not done.is_file():
            print(f"{name}: {', '.join(stage.name for stage in training.stages)} ...", flush=True)
            began = time.process_time()
            report = train_adapter(
                self.base,
                TrainingData(train),
                self.task,
                training,
                out,
                folder / "work",
                start=start.folder if start else None,
                every_seconds=20,
            )
            write_json(done, {"seconds": time.process_time() - began, "report": report.model_dump(mode="json")})
        else:
            self.reused += 1
        found = json.loads(done.read_text(encoding="utf-8"))
        return Trained(out, folder / "work", TrainReport.model_validate(found["report"]), found["seconds"])

    def greedy(self, trained: Trained | None, examples: Sequence[Example] | None = None) -> list[Scores]:
        """Scores of the greedy answers to `examples` (the held-out ones), `reward` among them; `None`: the base."""
        asked = self.held_out if examples is None else list(examples)

        def measure() -> list[Scores]:
            texts = [answer.text for answer in self._generator(trained).generate(self._asked(asked), _LONGEST)]
            rate = verifier(self.task)
            return [
                {**self.task.score(text, example), "reward": rate(text, example)}
                for text, example in zip(texts, asked, strict=True)
            ]

        key = ["greedy", self.digest_of(trained), [example.example_id for example in asked]]
        return self.kept("scores", key, measure)

    def answers(self, trained: Trained, examples: Sequence[Example], seed: int) -> list[str]:
        """One answer to each prompt, drawn at temperature 1."""
        import torch

        texts: list[str] = []
        generator = self._generator(trained)
        torch.manual_seed(seed)
        for begin in range(0, len(examples), _BATCH):
            texts += [text for text, _ in self._draw(generator, examples[begin : begin + _BATCH])]
        return texts

    def sampled(self, trained: Trained, reference: Trained) -> list[Sampled]:
        """Reward of a drawn answer to each held-out prompt, and its divergence from the reference."""

        def measure() -> list[dict[str, float]]:
            import torch

            torch.manual_seed(1)
            generator = self._generator(trained)
            rate = verifier(self.task)
            drawn = []
            for begin in range(0, len(self.held_out), _BATCH):
                drawn += self._draw(generator, self.held_out[begin : begin + _BATCH])
            rows = list(zip((encode_prompt(generator.tokenizer, asked) for asked in self._asked(self.held_out)),
                            (ids for _, ids in drawn), strict=True))  # fmt: skip
            ours = self._log_probs(generator.model, rows)
            theirs = self._log_probs(self._generator(reference).model, rows)
            return [
                {"reward": rate(text, example), "divergence": p - q}
                for (text, _), example, p, q in zip(drawn, self.held_out, ours, theirs, strict=True)
            ]

        key = ["sampled", self.digest_of(trained), self.digest_of(reference), self.adapter, self.sizes]
        return [Sampled.model_validate(row) for row in self.kept("sampled", key, measure)]

    def prefers(self, trained: Trained, pairs: Sequence[PreferencePair]) -> list[float]:
        """1 for each pair whose better answer the adapter finds more probable than the worse one, else 0."""

        def measure() -> list[float]:
            generator = self._generator(trained)
            encoder = SequenceEncoder(generator.tokenizer, self.task, 4 * _LONGEST)
            chosen = [encode_answer(encoder, [*pair.prompt, pair.chosen]) for pair in pairs]
            rejected = [encode_answer(encoder, [*pair.prompt, pair.rejected]) for pair in pairs]
            good, bad = (self._log_probs(generator.model, rows) for rows in (chosen, rejected))
            return [float(one > other) for one, other in zip(good, bad, strict=True)]

        return self.kept("prefers", ["prefers", self.digest_of(trained), [pair.pair_id for pair in pairs]], measure)

    def ranks(self, reward_model: Path, after: Trained, pairs: Sequence[PreferencePair]) -> list[float]:
        """1 for each pair whose better answer the reward model scores higher, else 0."""

        def measure() -> list[float]:
            import torch

            model = load_reward_model(reward_model, self.base)
            encoder = SequenceEncoder(self._generator(after).tokenizer, self.task, 4 * _LONGEST)
            right = []
            for pair in pairs:
                scores = []
                for answer in (pair.chosen, pair.rejected):
                    prompt, said = encode_answer(encoder, [*pair.prompt, answer])
                    with torch.inference_mode():
                        scores.append(float(model(torch.tensor([prompt + said])).logits))
                right.append(float(scores[0] > scores[1]))
            return right

        return self.kept("ranks", ["ranks", self.digest_of(after), [pair.pair_id for pair in pairs]], measure)

    def kept(self, name: str, key: list[Any], measure: Callable[[], Any]) -> Any:
        """The JSON value of `measure`, computed once for each `key`."""
        file = self._place(name, key) / "value.json"
        if not file.is_file():
            write_json(file, measure())
        return json.loads(file.read_text(encoding="utf-8"))

    def _place(self, name: str, key: list[Any]) -> Path:
        settings = sha256_text(canonical_json(key))[:16]
        folder = self.folder / f"{name}-{settings}-{self.code}"
        if self.any_code and not folder.is_dir():
            older = sorted(self.folder.glob(f"{name}-{settings}-*"), key=lambda path: path.stat().st_mtime)
            folder = older[-1] if older else folder
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @cached_property
    def code(self) -> str:
        """Digest of the code that trains and answers."""
        rooms = [project_root() / "pocketloop" / room for room in _ROOMS]
        files = sorted(file for room in rooms for file in room.rglob("*.py"))
        return sha256_text("".join(sha256_file(file) for file in files))[:8]

    def digest_of(self, trained: Trained | None) -> str:
        """Digest of the adapter's files."""
        return sha256_tree(trained.folder) if trained else "base"

    def _generator(self, trained: Trained | None) -> TransformersGenerator:
        wanted = trained.folder if trained else None
        if self._open is None or self._open[0] != wanted:
            if wanted:
                model, tokenizer = load_with_adapter(self.base, wanted, "float32")
                model = model.merge_and_unload()
            else:
                model, tokenizer = load_base(self.base, "float32")
            self._open = (wanted, model, tokenizer)
        return TransformersGenerator(self._open[1], self._open[2], _BATCH)

    def _asked(self, examples: Sequence[Example]) -> list[list[dict[str, str]]]:
        return [self.task.conversation(example.prompt, example.role) for example in examples]

    def _draw(self, generator: TransformersGenerator, examples: Sequence[Example]) -> list[tuple[str, list[int]]]:
        """(text, token ids with the end of the turn) of one drawn answer to each prompt."""
        import torch

        model, tokenizer = generator.model, generator.tokenizer
        stops = stop_ids(tokenizer, model.generation_config)
        prompts = [encode_prompt(tokenizer, asked) for asked in self._asked(examples)]
        padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(
                **padded,
                max_new_tokens=_LONGEST,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                eos_token_id=sorted(stops),
                pad_token_id=tokenizer.pad_token_id,
            )
        drawn = []
        for row in output[:, padded["input_ids"].shape[1] :].tolist():
            end = next((place for place, token in enumerate(row) if token in stops), len(row) - 1)
            text = tokenizer.decode(row[: end + (row[end] not in stops)], skip_special_tokens=True)
            drawn.append((text, row[: end + 1]))
        return drawn

    def _log_probs(self, model: Any, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Log-probability (nats) of each row's answer after its prompt."""
        import torch

        found: list[float] = []
        for begin in range(0, len(rows), _BATCH):
            part = rows[begin : begin + _BATCH]
            width = max(len(prompt) + len(answer) for prompt, answer in part)
            ids, mask, said = (torch.zeros(len(part), width, dtype=torch.long) for _ in range(3))
            for row, (prompt, answer) in enumerate(part):
                end = len(prompt) + len(answer)
                ids[row, :end] = torch.tensor(prompt + answer)
                mask[row, :end] = 1
                said[row, len(prompt) : end] = 1
            with torch.inference_mode():
                found += answer_log_probs(model, ids, mask, said).tolist()
        return found


def recipe_section(
    *stages: dict[str, dict[str, Any]], lora: dict[str, Any] | None = None, seed: int = 7
) -> TrainConfig:
    """A recipe's `train` section with these stages; the adapter is LoRA of rank 8 unless `lora` says otherwise."""
    shape = {"r": 8, "alpha": 16, "dropout": 0.0, **(lora or {})}
    return TrainConfig.model_validate(
        {"lora": shape, "stages": [Stage.model_validate(stage) for stage in stages], "seed": seed}
    )


def own_mistakes(examples: Sequence[Example], texts: Sequence[str], task: TaskSpec) -> list[PreferencePair]:
    """The right answer before the adapter's own wrong one, for each prompt that it got wrong."""
    return [
        make_pair(
            example.prompt,
            example.answer,
            Message(role="assistant", content=text),
            task=example.task,
            reason="judge",
            source=example.source,
            group=example.group,
        )
        for example, text in zip(examples, texts, strict=True)
        if text.strip() and verifier(task)(text, example) < 1 and text != write_answer(example.answer)
    ]


def own_ratings(examples: Sequence[Example], texts: Sequence[str], task: TaskSpec) -> list[RatedAnswer]:
    """The adapter's own answers, each found good or bad by itself."""
    return [
        RatedAnswer(
            rated_id=sha256_text(f"{example.example_id} {text}")[:20],
            task=example.task,
            source=example.source,
            group=example.group,
            messages=[*example.prompt, Message(role="assistant", content=text)],
            desirable=verifier(task)(text, example) == 1,
        )
        for example, text in zip(examples, texts, strict=True)
        if text.strip()
    ]


def shuffled(rows: Sequence[Any], seed: int) -> list[Any]:
    """The rows in an order drawn by `seed`."""
    return random.Random(seed).sample(list(rows), len(rows))
