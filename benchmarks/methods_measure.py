"""What `methods.py` measures of an adapter: greedy and drawn answers, divergence, which of two answers it prefers."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from methods_lab import Lab, Trained
from pydantic import BaseModel

from pocketloop.contracts.examples import Example, PreferencePair
from pocketloop.models.bases import load_base, load_with_adapter
from pocketloop.models.chat import encode_prompt, stop_ids
from pocketloop.models.generators import TransformersGenerator
from pocketloop.tasks.tasks import Scores
from pocketloop.training.hardware import computes_in_bfloat16
from pocketloop.training.logprobs import answer_log_probs
from pocketloop.training.preference_data import encode_answer
from pocketloop.training.reward import load_reward_model
from pocketloop.training.rewards import verifier
from pocketloop.training.tokens import SequenceEncoder

_LONGEST_DRAWN = 64
_BATCH = 50


class Sampled(BaseModel):
    """One answer drawn at temperature 1: what it is worth, and log p - log q against the reference (nats)."""

    reward: float
    divergence: float


class Measures:
    """Measures adapters on a lab's held-out examples; every measurement is kept."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._open: tuple[Path | None, Any, Any] | None = None

    def greedy(self, trained: Trained | None, examples: Sequence[Example] | None = None) -> list[Scores]:
        """Scores of the greedy answers to `examples` (the held-out ones), `reward` among them; `None`: the base."""
        asked = self.lab.held_out if examples is None else list(examples)

        def measure() -> list[Scores]:
            texts = [answer.text for answer in self._generator(trained).generate(self._asked(asked), self.lab.longest)]
            rate = verifier(self.lab.task)
            return [
                {**self.lab.task.score(text, example), "reward": rate(text, example)}
                for text, example in zip(texts, asked, strict=True)
            ]

        key = ["greedy", self.lab.digest_of(trained), [example.example_id for example in asked]]
        return self.lab.kept("scores", key, measure)

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
            rate = verifier(self.lab.task)
            drawn = []
            for begin in range(0, len(self.lab.held_out), _BATCH):
                drawn += self._draw(generator, self.lab.held_out[begin : begin + _BATCH])
            rows = list(zip((encode_prompt(generator.tokenizer, asked) for asked in self._asked(self.lab.held_out)),
                            (ids for _, ids in drawn), strict=True))  # fmt: skip
            ours, theirs = self._log_probs(trained, rows), self._log_probs(reference, rows)
            return [
                {"reward": rate(text, example), "divergence": p - q}
                for (text, _), example, p, q in zip(drawn, self.lab.held_out, ours, theirs, strict=True)
            ]

        key = [
            "sampled",
            self.lab.digest_of(trained),
            self.lab.digest_of(reference),
            self.lab.adapter,
            self.lab.sizes,
            _LONGEST_DRAWN,
        ]
        return [Sampled.model_validate(row) for row in self.lab.kept("sampled", key, measure)]

    def prefers(self, trained: Trained, pairs: Sequence[PreferencePair]) -> list[float]:
        """1 for each pair whose better answer the adapter finds more probable than the worse one, else 0."""

        def measure() -> list[float]:
            generator = self._generator(trained)
            encoder = SequenceEncoder(generator.tokenizer, self.lab.task, 4 * self.lab.longest)
            chosen = [encode_answer(encoder, [*pair.prompt, pair.chosen]) for pair in pairs]
            rejected = [encode_answer(encoder, [*pair.prompt, pair.rejected]) for pair in pairs]
            good, bad = (self._log_probs(trained, rows) for rows in (chosen, rejected))
            return [float(one > other) for one, other in zip(good, bad, strict=True)]

        return self.lab.kept(
            "prefers", ["prefers", self.lab.digest_of(trained), [pair.pair_id for pair in pairs]], measure
        )

    def ranks(self, reward_model: Path, after: Trained, pairs: Sequence[PreferencePair]) -> list[float]:
        """1 for each pair whose better answer the reward model scores higher, else 0."""

        def measure() -> list[float]:
            import torch

            model = load_reward_model(reward_model, self.lab.base)
            encoder = SequenceEncoder(self._generator(after).tokenizer, self.lab.task, 4 * self.lab.longest)
            right = []
            for pair in pairs:
                scores = []
                for answer in (pair.chosen, pair.rejected):
                    prompt, said = encode_answer(encoder, [*pair.prompt, answer])
                    with torch.inference_mode():
                        scores.append(float(model(torch.tensor([prompt + said])).logits))
                right.append(float(scores[0] > scores[1]))
            return right

        return self.lab.kept("ranks", ["ranks", self.lab.digest_of(after), [pair.pair_id for pair in pairs]], measure)

    def _generator(self, trained: Trained | None) -> TransformersGenerator:
        model, tokenizer = self._opened(trained)
        return TransformersGenerator(_fast(model), tokenizer, _BATCH)

    def _opened(self, trained: Trained | None) -> tuple[Any, Any]:
        """(model in float32 with the adapter merged, tokenizer)."""
        wanted = trained.folder if trained else None
        if self._open is None or self._open[0] != wanted:
            if wanted:
                model, tokenizer = load_with_adapter(self.lab.base, wanted, "float32")
                model = model.merge_and_unload()
            else:
                model, tokenizer = load_base(self.lab.base, "float32")
            self._open = (wanted, model.eval(), tokenizer)
        return self._open[1], self._open[2]

    def _asked(self, examples: Sequence[Example]) -> list[list[dict[str, str]]]:
        return [self.lab.task.conversation(example.prompt, example.role) for example in examples]

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
                max_new_tokens=min(_LONGEST_DRAWN, self.lab.longest),
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

    def _log_probs(self, trained: Trained, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Log-probability (nats) of each row's answer after its prompt, in float32."""
        import torch

        model = self._opened(trained)[0]
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


def _fast(model: Any) -> Any:
    """A copy of the model in the precision in which this machine is fast."""
    import torch

    return copy.deepcopy(model).to(torch.bfloat16) if computes_in_bfloat16() else model
