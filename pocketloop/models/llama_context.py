"""A llama.cpp context and its batch: several sequences at different places, computed together."""

import ctypes
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pocketloop.contracts.errors import ModelError
from pocketloop.models.generators import common_length
from pocketloop.models.llama_runtime import last_words, library

_BATCH = 2048  # tokens handed to llama.cpp at once
MICRO_BATCH = 512  # tokens that it computes at once

Pick = Callable[[Any], list[int]]
"""Takes one token of each row of logits."""


@dataclass
class LlamaSequence:
    """One conversation in a slot: tokens still to feed, the answer so far, tokens already in the cache."""

    feed: list[int]
    answer: list[int]
    position: int = field(default=0)


def _log_probs(logits: Any, tokens: Sequence[int]) -> list[float]:
    """Log-probability of one token in each row of logits."""
    import numpy as np

    if not len(tokens):
        return []
    highest = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - highest).sum(axis=1, dtype=np.float64))
    found: list[float] = (logits[np.arange(len(tokens)), tokens] - highest[:, 0] - total).tolist()
    return found


class LlamaContext:
    """A llama.cpp context with its batch: `slots` sequences of at most `width` tokens.

    `everything` makes room for the logits of every token, `outputs` for those of so many in one batch (otherwise of one
    for each sequence); `exact` computes attention in float32. `watch` is a `ggml_backend_sched_eval_callback` that sees
    every operation of the model's graph.
    """

    def __init__(
        self,
        model: Any,
        width: int,
        slots: int,
        threads: int,
        vocabulary: int,
        *,
        everything: bool,
        exact: bool,
        outputs: int = 0,
        watch: Any = None,
    ) -> None:
        import numpy as np

        lib = library()
        params = lib.llama_context_default_params()
        params.n_ctx = width * slots
        params.n_seq_max = slots
        params.n_batch = MICRO_BATCH if everything else _BATCH
        params.n_ubatch = MICRO_BATCH
        params.n_outputs_max = 0 if everything else max(slots, outputs)
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        if watch is not None:
            params.cb_eval = watch
        if exact:
            params.type_k = params.type_v = lib.GGML_TYPE_F32
            params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.width, self.slots, self.vocabulary = width, slots, vocabulary
        self.size = int(params.n_batch)
        self.outputs = self.size if everything else max(slots, outputs)
        self.computed = 0  # tokens since the context was made
        self._spoiled = False  # whether the cache holds values that are not finite
        self._unsure = False  # or may hold some
        self._prompts: list[list[int]] = [[] for _ in range(slots)]
        self._shared: list[int] = []  # what every slot began with when it was last given out
        self._context = lib.llama_init_from_model(model, params)
        if not self._context:
            raise ModelError(f"llama.cpp cannot make a context of {slots} x {width} tokens: {last_words()}")
        self._memory = lib.llama_get_memory(self._context)
        self.tokens = np.zeros(self.size, dtype=np.int32)
        self.positions = np.zeros(self.size, dtype=np.int32)
        self.sequences = np.zeros(self.size, dtype=np.int32)
        self.wanted = np.zeros(self.size, dtype=np.int8)
        self._counts = np.ones(self.size, dtype=np.int32)
        self._pointers = self.sequences.ctypes.data + 4 * np.arange(self.size, dtype=np.uint64)
        self._batch = lib.llama_batch(
            n_tokens=0,
            token=self._pointer(self.tokens, ctypes.c_int32),
            embd=None,
            pos=self._pointer(self.positions, ctypes.c_int32),
            n_seq_id=self._pointer(self._counts, ctypes.c_int32),
            seq_id=self._pointer(self._pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=self._pointer(self.wanted, ctypes.c_int8),
        )

    def step(self, slots: Sequence[LlamaSequence | None], pick: Pick | None = None) -> list[tuple[int, int]]:
        """Feed what the slots hold, as far as the batch allows; returns (slot, next token) where complete.

        The next token is the best one, or the one that `pick` takes from the logits [sequences, vocabulary].
        """
        used = 0
        complete: list[int] = []
        for number, slot in enumerate(slots):
            if slot is None or used == self.size:
                continue
            taken = slot.feed[: self.size - used]
            self._put(used, taken, slot.position, number)
            used += len(taken)
            slot.position += len(taken)
            slot.feed = slot.feed[len(taken) :]
            if not slot.feed:
                self.wanted[used - 1] = 1
                complete.append(number)
        rows = self._decode(used, len(complete))
        return list(zip(complete, rows.argmax(axis=1).tolist() if pick is None else pick(rows), strict=True))

    def all_logits(self, ids: list[int]) -> Any:
        """Logits after every token of one sequence, float32 [tokens, vocabulary]."""
        import numpy as np

        result = np.empty((len(ids), self.vocabulary), dtype=np.float32)
        self.clear()
        for start in range(0, len(ids), self.size):
            part = ids[start : start + self.size]
            self._put(0, part, start, 0)
            self.wanted[: len(part)] = 1
            result[start : start + len(part)] = self._decode(len(part), len(part))
        return result

    def log_probs(self, rows: Sequence[tuple[list[int], int]]) -> list[float]:
        """Log-probability (nats) of the end of each sequence, given as (token ids, where the end begins).

        What all of them begin with is computed once; a slot keeps what its next sequence begins with, too, so rows that
        are sorted cost least.
        """
        found = [0.0] * len(rows)
        if not rows:
            return found
        common = common_length(min(ids for ids, _ in rows), max(ids for ids, _ in rows))
        common = min(common, *(start - 1 for _, start in rows))
        self.begin(rows[0][0][:common] if self.slots > 1 else [])
        waiting = deque(range(len(rows)))
        slots: list[tuple[int, LlamaSequence] | None] = [None] * self.slots
        while waiting or any(slots):
            used = 0
            targets: list[tuple[int, int]] = []  # (row, token that is to be predicted) of each wanted place
            for number in range(self.slots):
                if slots[number] is None and waiting:
                    slots[number] = (waiting[0], self._continue(number, *rows[waiting.popleft()]))
                slot = slots[number]
                if slot is None:
                    continue
                row, sequence = slot
                ids, start = rows[row]
                room = min(self.size - used, self._fits(sequence, start, self.outputs - len(targets)))
                taken = sequence.feed[:room]
                self._put(used, taken, sequence.position, number)
                for at in range(max(sequence.position, start - 1), sequence.position + len(taken)):
                    self.wanted[used + at - sequence.position] = 1
                    targets.append((row, ids[at + 1]))
                used += len(taken)
                sequence.position += len(taken)
                sequence.feed = sequence.feed[len(taken) :]
                if not sequence.feed:
                    slots[number] = None
            logits = self._decode(used, len(targets))
            for (row, _), value in zip(targets, _log_probs(logits, [token for _, token in targets]), strict=True):
                found[row] += value
        return found

    def _continue(self, slot: int, ids: list[int], start: int) -> LlamaSequence:
        """Give a slot to a sequence; the place before `start` is always computed, and the last token never."""
        kept = common_length(self._prompts[slot], ids[: start - 1])
        library().llama_memory_seq_rm(self._memory, slot, kept, -1)
        self._prompts[slot] = ids[:-1]
        return LlamaSequence(feed=ids[kept:-1], answer=[], position=kept)

    @staticmethod
    def _fits(sequence: LlamaSequence, start: int, outputs: int) -> int:
        """How many of the sequence's tokens can be fed with so many places left whose logits are wanted."""
        return max(0, start - 1 - sequence.position) + outputs

    def apply(self, adapter: Any) -> None:
        """Use `adapter` (or none) from now on, and drop what was computed with another."""
        lib = library()
        if adapter:
            handles = (lib.llama_adapter_lora_p_ctypes * 1)(adapter)
            status = lib.llama_set_adapters_lora(self._context, handles, 1, (ctypes.c_float * 1)(1.0))
        else:
            status = lib.llama_set_adapters_lora(self._context, None, 0, None)
        if status != 0:
            raise ModelError(f"llama.cpp cannot apply the adapter: {last_words()}")
        self.clear()

    def clear(self) -> None:
        """Forget all sequences.

        Their keys and values need not be overwritten, which takes milliseconds: cells without a sequence are masked.
        But a mask is a product with zero, which does not hide what is not finite.
        """
        library().llama_memory_clear(self._memory, self._unsure)
        self._spoiled = self._unsure = False
        self._prompts = [[] for _ in range(self.slots)]
        self._shared = []

    def begin(self, beginning: list[int]) -> None:
        """Leave every slot with what all prompts begin with, and nothing else: computed once, and copied.

        The same beginning as the last time is still there.
        """
        lib = library()
        if beginning and beginning == self._shared and not self._unsure:
            for slot in range(self.slots):
                lib.llama_memory_seq_rm(self._memory, slot, len(beginning), -1)
            self._prompts = [beginning] * self.slots
            return
        self.clear()
        if not beginning:
            return
        for at in range(0, len(beginning), self.size):
            part = beginning[at : at + self.size]
            self._put(0, part, at, 0)
            self._decode(len(part), 0)
        for slot in range(1, self.slots):
            lib.llama_memory_seq_cp(self._memory, 0, slot, -1, -1)
        self._prompts, self._shared = [beginning] * self.slots, beginning

    def start(self, slot: int, prompt: list[int], answer: list[int]) -> LlamaSequence:
        """Give a slot to a prompt, keeping what its previous one began with alike; `answer` will be appended to."""
        # The last token is always computed: its logits are wanted.
        kept = common_length(self._prompts[slot], prompt[:-1])
        library().llama_memory_seq_rm(self._memory, slot, kept, -1)
        self._prompts[slot] = prompt
        return LlamaSequence(feed=prompt[kept:], answer=answer, position=kept)

    def free(self) -> None:
        """Give the context's memory back."""
        library().llama_free(self._context)

    def _put(self, start: int, ids: list[int], position: int, sequence: int) -> None:
        import numpy as np

        end = start + len(ids)
        self.tokens[start:end] = ids
        self.positions[start:end] = np.arange(position, position + len(ids))
        self.sequences[start:end] = sequence
        self.wanted[start:end] = 0

    def _decode(self, tokens: int, outputs: int) -> Any:
        """Run the first `tokens` entries of the batch; a view of the wanted logits [outputs, vocabulary]."""
        import numpy as np

        lib = library()
        self._batch.n_tokens = tokens
        self.computed += tokens
        status = lib.llama_decode(self._context, self._batch)
        if status != 0:
            raise ModelError(f"llama.cpp failed on a batch of {tokens} tokens (status {status}): {last_words()}")
        if not outputs:
            self._unsure = True  # until a later token's logits tell
            return np.empty((0, self.vocabulary), dtype=np.float32)
        rows = np.ctypeslib.as_array(lib.llama_get_logits(self._context), shape=(outputs, self.vocabulary))
        self._spoiled = self._spoiled or not np.isfinite(rows[:, 0]).all()
        self._unsure = self._spoiled
        return rows

    @staticmethod
    def _pointer(array: Any, kind: Any) -> Any:
        return array.ctypes.data_as(ctypes.POINTER(kind))
