"""llama.cpp as a Generator: what a phone runs, with many conversations decoded together."""

import ctypes
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.events import Conversation
from pocketloop.contracts.files import sha256_file
from pocketloop.models.chat import load_tokenizer
from pocketloop.models.generators import (
    Generation,
    TokenGenerator,
    check_prompts,
    common_length,
    scored_rows,
    stops_of,
)
from pocketloop.models.llama_context import MICRO_BATCH, LlamaContext, LlamaSequence, Pick
from pocketloop.models.llama_runtime import (
    BASE_DIGEST_KEY,
    adapter_metadata,
    default_threads,
    last_words,
    library,
    load_adapter,
    load_model,
)

_SCORED_TOGETHER = 64
"""Sequences that are scored in one batch: nothing is drawn from them, so they may be many."""
_SCORED_ROOM = 1 << 24
"""Logits kept at a time while scoring: 64 MB."""
_WORTH_SHARING = 16
"""Tokens at the beginning of all prompts from which on copying them between slots beats computing them in each."""


class LlamaCppGenerator(TokenGenerator):
    """Greedy generation with a GGUF base and, if wanted, a GGUF LoRA adapter that can be swapped while it runs.

    Up to `parallel` conversations are decoded in one batch; when one ends, the next prompt takes its place, and what
    both prompts begin with (a system text, declared functions) is not computed again. Prompts are rendered with the
    chat template of the transformers tokenizer in `tokenizer`, so both runtimes see the same ids.

    Args:
        base: GGUF model.
        tokenizer: folder with the transformers tokenizer (the base's own folder).
        adapter: GGUF LoRA; must name `base_digest`.
        chat_template: file that replaces the tokenizer's template.
        context: longest prompt and answer together, in tokens.
        parallel: conversations decoded together.
        threads: by default OMP_NUM_THREADS, or one for each core that the process may use.
        base_digest: sha256 that adapters must name; by default that of the file `base`. Give the quantized base's
            digest when `base` is the unquantized file of the same model.
        exact: keep keys and values as float32 and attend in float32: slower, for comparisons with transformers.

    Raises:
        ModelError: a file is absent or damaged, or the adapter belongs to another base.
    """

    def __init__(
        self,
        base: Path,
        tokenizer: Path,
        adapter: Path | None = None,
        *,
        chat_template: str | None = None,
        context: int = 2048,
        parallel: int = 16,
        threads: int | None = None,
        base_digest: str | None = None,
        exact: bool = False,
    ) -> None:
        self.base = base
        self.tokenizer = load_tokenizer(tokenizer, chat_template)
        self.context = context
        self.parallel = parallel
        self.threads = threads or default_threads()
        self.exact = exact
        self._base_digest = base_digest
        self._contexts: dict[str, LlamaContext] = {}
        self._adapter: Any = None
        self._preloaded: dict[Path, Any] = {}
        self._model = load_model(base)
        self._vocab = library().llama_model_get_vocab(self._model)
        self.vocabulary: int = library().llama_vocab_n_tokens(self._vocab)
        is_end = library().llama_vocab_is_eog
        ends = {token for token in range(self.vocabulary) if is_end(self._vocab, token)}
        self.stops = stops_of(tokenizer, self.tokenizer) | ends
        try:
            self.set_adapter(adapter)
        except ModelError:
            self.close()
            raise

    def sample(
        self,
        conversations: Sequence[Conversation],
        max_new_tokens: int,
        tools: list[dict[str, Any]] | None = None,
        *,
        temperature: float,
        seed: int,
    ) -> list[Generation]:
        """Answer each conversation with tokens drawn from the softmax of logits / `temperature`, in order.

        The same call on the same generator gives the same answers.
        """
        import numpy as np

        rng = np.random.default_rng(seed)

        def pick(rows: Any) -> list[int]:
            # The largest of logits plus Gumbel noise is a draw from their softmax.
            return [int(at) for at in (rows / temperature + rng.gumbel(size=rows.shape)).argmax(axis=1)]

        return self.answers(conversations, tools, lambda prompts: self.generate_ids(prompts, max_new_tokens, pick))

    def generate_ids(
        self, prompts: Sequence[list[int]], max_new_tokens: int, pick: Pick | None = None
    ) -> list[list[int]]:
        """Continuations of token sequences, greedy unless `pick` says otherwise; a stop token is included."""
        check_prompts(prompts, self.context)
        answers: list[list[int]] = [[] for _ in prompts]
        if not prompts or max_new_tokens < 1:
            return answers
        width = min(max(map(len, prompts)) + max_new_tokens, self.context)
        runner = self._runner("generate", width, min(self.parallel, len(prompts)), everything=False)
        first, last = min(prompts), max(prompts)  # what these two begin with, all between them do
        alike = common_length(first, last)
        runner.begin(first[:alike] if runner.slots > 1 and alike >= _WORTH_SHARING else [])
        waiting = deque(zip(prompts, answers, strict=True))
        slots: list[LlamaSequence | None] = [None] * min(self.parallel, len(prompts))
        while waiting or any(slots):
            for number in (number for number, slot in enumerate(slots) if slot is None and waiting):
                slots[number] = runner.start(number, *waiting.popleft())
            for number, best in runner.step(slots, pick):
                slot = slots[number]
                assert slot is not None
                slot.answer.append(best)
                slot.feed = [best]
                if best in self.stops or len(slot.answer) == max_new_tokens or slot.position == width:
                    slots[number] = None
        return answers

    def log_probs(self, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[float]:
        """Log-probability (nats) of each answer's tokens after its prompt's, many sequences at a time.

        Raises:
            ModelError: a prompt and its answer do not fit the context, or one of them is empty.
        """
        rows = scored_rows(prompts, answers, self.context)
        if not rows:
            return []
        order = sorted(range(len(rows)), key=lambda at: rows[at])
        width = max(len(ids) for ids, _ in rows)
        outputs = max(_SCORED_ROOM // self.vocabulary, 1)
        slots = min(_SCORED_TOGETHER, len(rows), outputs)
        runner = self._runner("score", width, slots, everything=False, outputs=min(outputs, MICRO_BATCH))
        found = runner.log_probs([rows[at] for at in order])
        return [value for _, value in sorted(zip(order, found, strict=True))]

    def logits(self, token_ids: Sequence[list[int]]) -> list[Any]:
        """Logits after every token of every sequence: float32 arrays [tokens, vocabulary]."""
        longest = max((len(ids) for ids in token_ids), default=1)
        if longest > self.context:
            raise ModelError(f"a sequence of {longest} tokens does not fit the context of {self.context}")
        runner = self._runner("logits", longest, 1, everything=True)
        return [runner.all_logits(ids) for ids in token_ids]

    def tokenize(self, text: str) -> list[int]:
        """llama.cpp's own token ids of a rendered prompt: special tokens are recognised, none is added."""
        data = text.encode()
        room = len(data) + 1
        buffer = (ctypes.c_int32 * room)()
        count = library().llama_tokenize(self._vocab, data, len(data), buffer, room, False, True)
        if count < 0:
            raise ModelError(f"llama.cpp cannot tokenize a text of {len(text)} characters: {last_words()}")
        return list(buffer[:count])

    def chat_template(self) -> str | None:
        """The chat template in the model's own file, if it has one."""
        found = library().llama_model_chat_template(self._model, None)
        return found.decode() if found else None

    def preload(self, adapters: Sequence[Path]) -> None:
        """Keep these adapters in memory, so that `set_adapter` to one of them reads no file and takes microseconds.

        What a path held when it was loaded is what it stands for until it is unloaded.

        Raises:
            ModelError: a file is absent, damaged, or made for another base; those before it stay loaded.
        """
        for adapter in adapters:
            if adapter not in self._preloaded:
                self._preloaded[adapter] = self._open(adapter)

    def unload(self, adapter: Path) -> None:
        """Give a preloaded adapter's memory back; if it is in use, the base answers alone from now on."""
        handle = self._preloaded.get(adapter)
        if handle is None:
            return
        if handle is self._adapter:
            self._use(None)
        del self._preloaded[adapter]
        library().llama_adapter_lora_free(handle)

    def set_adapter(self, adapter: Path | None) -> None:
        """Swap the adapter (`None`: the base alone). Cached keys and values belong to the old one and are dropped.

        Raises:
            ModelError: the file is absent, damaged, or made for another base, and the old adapter then stays; or the
                generator has been closed.
        """
        self._check_open()
        handle = None if adapter is None else self._preloaded.get(adapter) or self._open(adapter)
        self._use(handle)

    def _use(self, handle: Any) -> None:
        previous, self._adapter = self._adapter, handle
        for context in self._contexts.values():
            context.apply(handle)
        if previous and previous is not handle and not any(previous is kept for kept in self._preloaded.values()):
            library().llama_adapter_lora_free(previous)

    def _open(self, adapter: Path) -> Any:
        """The handle of an adapter file that names this base."""
        self._check_open()
        handle = load_adapter(self._model, adapter)
        expected = self._base_digest = self._base_digest or sha256_file(self.base)
        named = adapter_metadata(handle, BASE_DIGEST_KEY)
        if named != expected:
            library().llama_adapter_lora_free(handle)
            raise ModelError(
                f"{adapter} belongs to the base with digest {(named or 'none')[:16]}, "
                f"not to {self.base.name} ({expected[:16]}): export it again for this base"
            )
        return handle

    def _check_open(self) -> None:
        if self._model is None:
            raise ModelError(f"{self.base.name} has been closed")

    def close(self) -> None:
        """Free everything that the library holds; safe to call twice."""
        for context in self._contexts.values():
            context.free()
        self._contexts.clear()
        model, self._model = self._model, None
        self._adapter = None
        self._preloaded.clear()
        if model:
            library().llama_model_free(model)  # frees its adapters too

    def _runner(self, purpose: str, width: int, slots: int, *, everything: bool, outputs: int = 0) -> LlamaContext:
        """A context at least `width` tokens wide; made anew only when the one at hand is too small."""
        known = self._contexts.get(purpose)
        if known is None or known.width < width or known.slots < slots:
            self._check_open()
            if known is not None:
                known.free()
            known = LlamaContext(
                self._model,
                width,
                slots,
                self.threads,
                self.vocabulary,
                everything=everything,
                exact=self.exact,
                outputs=outputs,
            )
            known.apply(self._adapter)
            self._contexts[purpose] = known
        return known
