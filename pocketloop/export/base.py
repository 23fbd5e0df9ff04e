"""A base as phones run it: converted and quantized once, named by its digest, with probes that prove it."""

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from pocketloop.contracts.delivery import Probe
from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.files import atomic_dir, canonical_json, sha256_file, sha256_text, write_json
from pocketloop.contracts.recipe import BaseConfig
from pocketloop.contracts.reports import BaseManifest
from pocketloop.export.gguf_model import convert_model
from pocketloop.export.quantize import Quantization, quantize
from pocketloop.models.bases import base_folder
from pocketloop.models.chat import encode_prompt
from pocketloop.models.llama_cpp import LlamaCppGenerator

_CONVERTER = 1
"""Raised whenever the same weights would give other bytes, so that prepared folders are made anew."""

_QUANTIZED, _UNQUANTIZED, _TOKENIZER_FOLDER = "base.gguf", "base-f16.gguf", "tokenizer"
_WEIGHTS = ("*.safetensors", "config.json")
_TOKENIZER = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "*.jinja",
)
_PROBE_PROMPTS = (
    "Hello!",
    "What can you do?",
    "Set a timer for ten minutes.",
    "Add milk and eggs to my shopping list.",
    "What will the weather be like tomorrow?",
    "Tell Anna that I am running late.",
    "How do I get home from here?",
    "Thank you, good night.",
)
_PROBE_TOKENS = 16


class PreparedBase(NamedTuple):
    """A prepared base's folder and manifest."""

    folder: Path
    manifest: BaseManifest

    @property
    def quantized(self) -> Path:
        """The file that phones run."""
        return self.folder / _QUANTIZED

    @property
    def unquantized(self) -> Path:
        """The F16 file that it was made from."""
        return self.folder / _UNQUANTIZED

    @property
    def tokenizer(self) -> Path:
        """The transformers tokenizer and configuration, without weights."""
        return self.folder / _TOKENIZER_FOLDER


def prepare_base(
    config: BaseConfig, quantization: Quantization, out_dir: Path, *, threads: int | None = None
) -> PreparedBase:
    """Convert and quantize a base into `out_dir`/DIGEST, or find it there, whole and unchanged.

    DIGEST is the sha256 of the quantized file: adapters name it and are refused on any other.

    Raises:
        ModelError: the weights are absent, or are not those that `config.digest` names.
        ExportError: the model cannot be expressed in GGUF.
    """
    source = base_folder(config)
    weights = weights_digest(source)
    if config.digest and config.digest != weights:
        raise ModelError(
            f"base {config.base}: the weights in {source} have digest {weights}, the configuration asks for "
            f"{config.digest}; fetch the right revision or correct `digest`"
        )
    inputs = _inputs(config, source, weights, quantization)
    for record in sorted(out_dir.glob("[!.]*/inputs.json")):
        if record.read_text(encoding="utf-8").strip() == inputs and is_whole(record.parent):
            return open_base(record.parent)
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{config.base}.", dir=out_dir) as name:
        work = Path(name)
        manifest = _build(config, source, weights, quantization, work, threads)
        (work / "inputs.json").write_text(inputs + "\n", encoding="utf-8")
        with atomic_dir(out_dir / manifest.digest) as final:
            for path in work.iterdir():
                path.rename(final / path.name)
    return open_base(out_dir / manifest.digest)


def open_base(folder: Path) -> PreparedBase:
    """Read a prepared base's manifest."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise ModelError(f"{folder} holds no prepared base; run `prepare_base`")
    return PreparedBase(folder, BaseManifest.model_validate_json(path.read_text(encoding="utf-8")))


def is_whole(folder: Path) -> bool:
    """Whether every file of a prepared base is there and has the digest that the manifest gives."""
    if not (folder / "manifest.json").is_file():
        return False
    files = open_base(folder).manifest.files
    return all((folder / name).is_file() and sha256_file(folder / name) == digest for name, digest in files.items())


def weights_digest(folder: Path) -> str:
    """Digest of a model folder's weights: over the names and sha256 of config.json and all safetensors files.

    Raises:
        ModelError: there are none.
    """
    paths = sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern))
    if not any(path.suffix == ".safetensors" for path in paths):
        raise ModelError(f"{folder} holds no safetensors weights")
    return sha256_text("\n".join(f"{path.name} {sha256_file(path)}" for path in paths))


def write_probes(
    path: Path, base: Path, tokenizer: Path, adapter: Path | None = None, threads: int | None = None
) -> list[Probe]:
    """Record how the quantized `base`, with `adapter` if one is given, continues the fixed prompts, in `path`."""
    with LlamaCppGenerator(base, tokenizer, adapter, threads=threads) as generator:
        ids = [encode_prompt(generator.tokenizer, [{"role": "user", "content": text}]) for text in _PROBE_PROMPTS]
        answers = generator.generate_ids(ids, _PROBE_TOKENS)
    probes = [
        Probe(prompt=text, prompt_ids=prompt, answer_ids=answer)
        for text, prompt, answer in zip(_PROBE_PROMPTS, ids, answers, strict=True)
    ]
    write_json(path, [probe.model_dump() for probe in probes])
    return probes


def _inputs(config: BaseConfig, source: Path, weights: str, quantization: str) -> str:
    """All that determines a prepared base's bytes, as one line."""
    tokenizer = {p.name: sha256_file(p) for pattern in _TOKENIZER for p in source.glob(pattern) if p.is_file()}
    template = sha256_file(Path(config.chat_template)) if config.chat_template else None
    return canonical_json(
        {
            "base": config.base,
            "converter": _CONVERTER,
            "quantization": quantization,
            "template": template,
            "tokenizer": tokenizer,
            "weights": weights,
        }
    )


def _build(
    config: BaseConfig, source: Path, weights: str, quantization: Quantization, work: Path, threads: int | None
) -> BaseManifest:
    conversion = convert_model(source, work / _UNQUANTIZED, name=config.base, chat_template=config.chat_template)
    if conversion.architecture != config.architecture:
        raise ModelError(
            f"base {config.base}: {source} holds {conversion.architecture}, "
            f"the configuration says {config.architecture}"
        )
    quantized = quantize(work / _UNQUANTIZED, work / _QUANTIZED, quantization, threads)
    tokenizer = work / _TOKENIZER_FOLDER
    tokenizer.mkdir()
    for path in sorted({path for pattern in _TOKENIZER for path in source.glob(pattern) if path.is_file()}):
        shutil.copyfile(path, tokenizer / path.name)
    if config.chat_template:
        shutil.copyfile(config.chat_template, tokenizer / "chat_template.jinja")
    probes = write_probes(work / "probes.json", work / _QUANTIZED, tokenizer, threads=threads)
    files = sorted(path for path in work.rglob("*") if path.is_file())
    manifest = BaseManifest(
        base=config.base,
        architecture=conversion.architecture,
        source=Path(config.source).name if Path(config.source).is_absolute() else config.source,
        weights_digest=weights,
        digest=sha256_file(work / _QUANTIZED),
        quantization=quantization,
        parameters=conversion.parameters,
        files={path.relative_to(work).as_posix(): sha256_file(path) for path in files},
        sizes={path.relative_to(work).as_posix(): path.stat().st_size for path in files},
        fallback_tensors=quantized.fallback_tensors,
        bits_per_weight=quantized.bits_per_weight,
        probes=len(probes),
    )
    write_json(work / "manifest.json", manifest)
    return manifest
