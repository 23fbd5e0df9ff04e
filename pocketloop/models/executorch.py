"""ExecuTorch as a Generator: a `.pte` program as a phone runs it, in a process of its own."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.events import Conversation
from pocketloop.contracts.files import sha256_file
from pocketloop.contracts.lowering import PteManifest
from pocketloop.models.chat import load_tokenizer
from pocketloop.models.generators import Generation, TokenGenerator, check_prompts, stops_of
from pocketloop.models.pte_env import PteEnvironment, last_lines, pte_environment
from pocketloop.models.pte_process import PteProcess

MANIFEST, PROGRAM, DATA, TOKENIZER = "manifest.json", "model.pte", "base.ptd", "tokenizer"


def read_manifest(folder: Path) -> PteManifest:
    """What a lowered model's folder says about itself.

    Raises:
        ModelError: it holds none.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(
            f"{folder} holds no lowered model (no {MANIFEST}); `pocketloop export --formats pte` makes one"
        )
    return PteManifest.model_validate_json(path.read_text(encoding="utf-8"))


class ExecuTorchGenerator(TokenGenerator):
    """Greedy generation with a lowered model; in the shared form its adapter can be swapped while it runs.

    The runtime is a process in ExecuTorch's own environment (made on first use), so a damaged program that makes the
    runtime crash is a `ModelError` here, and the next request starts another process. One sequence runs at a time, as
    on a phone; what a prompt begins with like the one before is not computed again. Prompts are rendered with the chat
    template of the transformers tokenizer in `tokenizer`.

    Args:
        folder: a lowered model (`export/pte.py`); in the shared form this may be the base alone, or an adapter.
        data: the shared weights, where the program needs them.
        tokenizer: folder with the transformers tokenizer; by default the one beside the program or its shared weights.
        context: longest prompt and answer together, in tokens; by default what the program was lowered for.
        answer_s: seconds that one answer may take. A process that needs longer is ended.
        environment: where ExecuTorch is installed.

    Raises:
        ModelError: a file is absent, damaged, made for other weights or for a backend that this machine lacks.
    """

    def __init__(
        self,
        folder: Path,
        data: Path | None = None,
        *,
        tokenizer: Path | None = None,
        chat_template: str | None = None,
        context: int | None = None,
        answer_s: float = 600,
        environment: PteEnvironment | None = None,
    ) -> None:
        self.folder = folder
        self.data = data
        self.manifest = read_manifest(folder)
        self.context = min(context or self.manifest.context, self.manifest.context)
        words = tokenizer or next(
            (path for path in (folder / TOKENIZER, (data or folder).parent / TOKENIZER) if path.is_dir()), None
        )
        if words is None:
            raise ModelError(f"{folder} has no tokenizer beside it; name the base's folder")
        self._words = words
        self.tokenizer = load_tokenizer(words, chat_template)
        self.stops = stops_of(words, self.tokenizer)
        self.timing: dict[str, float] = {}
        """Tokens and seconds of the latest call: `prompt_tokens`, `prompt_seconds`, `answer_tokens` ..."""
        self._log = tempfile.NamedTemporaryFile(prefix="executorch-", suffix=".log")  # noqa: SIM115 (lives as long)
        self._process: PteProcess | None = None
        self._closed = False
        self._answer_s = answer_s
        self._in_use: dict[str, Any] = {}
        self._data_digest: str | None = None
        self._idle = {"peak": 0, "resident": 0, "mapped": 0}
        self._environment = environment or pte_environment()
        try:
            self._use(folder)
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
        """Answer each conversation with tokens drawn from the softmax of logits / `temperature`, in order."""

        def draw(prompts: list[list[int]]) -> list[list[int]]:
            return self.generate_ids(prompts, max_new_tokens, temperature=temperature, seed=seed)

        return self.answers(conversations, tools, draw)

    def generate_ids(
        self, prompts: Sequence[list[int]], max_new_tokens: int, *, temperature: float = 0.0, seed: int = 0
    ) -> list[list[int]]:
        """Continuations of token sequences, greedy unless a temperature is given; a stop token is included."""
        check_prompts(prompts, self.context)
        if not prompts or max_new_tokens < 1:
            return [[] for _ in prompts]
        reply, _ = self._ask(
            seconds=self._answer_s * len(prompts),
            do="generate",
            prompts=list(prompts),
            max_new_tokens=max_new_tokens,
            stops=sorted(self.stops),
            context=self.context,
            temperature=temperature,
            seed=seed,
        )
        self.timing = {key: float(value) for key, value in reply.items() if key != "answers"}
        answers: list[list[int]] = reply["answers"]
        return answers

    def logits(self, token_ids: Sequence[list[int]]) -> list[Any]:
        """Logits after every token of every sequence: float32 arrays [tokens, vocabulary]."""
        import numpy as np

        arrays = []
        for ids in token_ids:
            if not 0 < len(ids) <= self.context:
                raise ModelError(f"a sequence of {len(ids)} tokens does not fit the context of {self.context}")
            reply, payload = self._ask(do="logits", ids=ids)
            arrays.append(np.frombuffer(payload, dtype=np.float32).reshape(reply["shape"]))
        return arrays

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a rendered prompt by the tokenizer that phones use; none is added.

        Raises:
            ModelError: that tokenizer cannot read the base's `tokenizer.json`.
        """
        reply, _ = self._ask(do="tokenize", folder=str(self._words), text=text)
        ids: list[int] = reply["ids"]
        return ids

    def set_adapter(self, folder: Path) -> None:
        """Run another program on the same shared weights: an adapter's, or the base's own. Its cache starts empty.

        A program is loaded the first time; after that a swap costs nothing but the empty cache.

        Raises:
            ModelError: the folder holds no such program, or one for other weights; the old one then stays in use.
        """
        self._use(folder)

    def memory(self) -> tuple[int, int]:
        """Bytes by which the process grew since its libraries were loaded: (at its peak, of mapped files now).

        Where loading the libraries took more for a moment than anything since, the peak is not known: then it is what
        is held now.
        """
        now, _ = self._ask(do="memory")
        idle = self._idle
        most = now["peak"] if now["peak"] > idle["peak"] else now["resident"]
        return max(int(most) - idle["resident"], 0), max(int(now["mapped"]) - idle["mapped"], 0)

    def close(self) -> None:
        """End the process; safe to call twice."""
        self._closed = True
        self._end(patience_s=10)
        self._log.close()

    def _use(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        program = folder / PROGRAM
        if not manifest.ran:
            raise ModelError(f"{folder} was lowered for {manifest.backend}, which runs on such a device alone")
        if not program.is_file() or sha256_file(program) != manifest.program_digest:
            raise ModelError(f"{program} is not the file that its manifest names: it is damaged; export it again")
        data = self._shared_weights(manifest, folder)
        use: dict[str, Any] = {"do": "use", "program": str(program.resolve()), "data": data, "window": manifest.window}
        self._ask(**use)
        self.folder, self.manifest, self._in_use = folder, manifest, use

    def _shared_weights(self, manifest: PteManifest, folder: Path) -> str | None:
        """The file of shared weights that a program needs, once its digest is seen to be the right one."""
        if manifest.data_digest is None:
            return None
        if self.data is None:
            own = folder / DATA
            if not own.is_file():
                raise ModelError(f"{folder} holds a program without weights; give the `{DATA}` that it belongs to")
            self.data = own
        if not self.data.is_file():
            raise ModelError(f"{self.data}: no such file of shared weights")
        self._data_digest = self._data_digest or sha256_file(self.data)
        if self._data_digest != manifest.data_digest:
            raise ModelError(
                f"{folder} belongs to the shared weights {manifest.data_digest[:16]}, not to {self.data} "
                f"({self._data_digest[:16]}): export it again for this base"
            )
        return str(self.data.resolve())

    def _ask(self, seconds: float | None = None, **request: Any) -> tuple[dict[str, Any], bytes]:
        """Send a request and wait at most so many `seconds`; (the reply, its raw bytes).

        Raises:
            ModelError: the request failed, the process died of it, or it took too long (then it is a `TooLate`).
        """
        process = self._running()
        try:
            reply, payload = process.ask(request, seconds)
        except (BrokenPipeError, EOFError):
            raise ModelError(self._how_it_ended(process)) from None
        except TimeoutError:
            self._end(patience_s=0)
            raise TooLate(f"ExecuTorch did not {request['do']} {self.folder} in {seconds:g} s") from None
        if "error" in reply:
            raise ModelError(f"ExecuTorch cannot {request['do']} {self.folder}: {reply['error']}")
        return reply, payload

    def _running(self) -> PteProcess:
        """The process; a new one, with the program that was in use, where the one before has died."""
        if self._closed:
            raise ModelError(f"the generator of {self.folder} has been closed")
        if self._process is None:
            process = self._process = PteProcess(self._environment, self._log)
            try:
                ready, _ = process.receive()
                self._idle = ready["memory"]
                if self._in_use:
                    process.ask(self._in_use)
            except (BrokenPipeError, EOFError):
                raise ModelError(self._how_it_ended(process)) from None
        return self._process

    def _end(self, patience_s: float) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end(patience_s)

    def _how_it_ended(self, process: PteProcess) -> str:
        status = process.status()
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        said = last_lines(Path(self._log.name))
        self._end(patience_s=0)
        return f"ExecuTorch's process {how} on {self.folder}: the program may be damaged. It said:\n{said}"


class TooLate(ModelError, TimeoutError):
    """An answer did not come in time."""
