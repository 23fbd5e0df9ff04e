"""Scoring a bundle's files on somebody's data, as a phone runs them, or somewhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pocketloop.contracts.errors import ConfigError, DataError, ModelError
from pocketloop.contracts.events import Quarantined
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_base_config, load_config
from pocketloop.contracts.recipe import Catalogue, Recipe
from pocketloop.contracts.reports import ReleaseBundle, SetResult, SliceResult
from pocketloop.models.answering import OnAnswered
from pocketloop.models.generators import Generator
from pocketloop.models.llama_cpp import LlamaCppGenerator

PHONE, TRANSFORMERS = "llama.cpp", "transformers"


class Scored(NamedTuple):
    """A bundle's result, its worst slice (`None`: the data is one slice), and the lines that could not be used."""

    result: SetResult
    worst: SliceResult | None
    refused: list[Quarantined]


def evaluate_bundle(
    home: Home,
    bundle: Path,
    data: str,
    limit: int | None,
    on: str = PHONE,
    model: str = "",
    api_key_env: str = "",
    on_progress: OnAnswered | None = None,
    every_turn: bool = False,
) -> Scored:
    """Answer the examples of `data` with the bundle's adapter, the last answer of a conversation or `every_turn`.

    `on` is `llama.cpp`, `transformers`, the folder of a program that was lowered from the adapter, or the OpenAI-
    compatible address where `model` is served.

    Raises:
        DataError: no line of `data` can be used.
        ConfigError: `on` is none of these, or an address without a model.
        ModelError: the base that the adapter belongs to is not prepared here.
    """
    from pocketloop.data.example_files import read_examples
    from pocketloop.evaluation.slices import slice_results
    from pocketloop.evaluation.suite import run_set
    from pocketloop.tasks.tasks import TaskSpec

    recipe = Recipe.model_validate_json((bundle / "recipe.json").read_text(encoding="utf-8"))
    listed = bundle / "catalogue.json"
    task = TaskSpec.of(recipe, load_config(listed, Catalogue) if listed.is_file() else None)
    examples, refused = read_examples(data, recipe.task, turns="every" if every_turn else "last")
    if not examples:
        raise DataError(f"{data} holds no {recipe.task} examples")
    with _opened(home, bundle, recipe, on, model, api_key_env) as generator:
        result, outcomes = run_set(
            generator,
            examples[:limit],
            task,
            recipe.evaluation.max_new_tokens,
            recipe.adapter,
            Path(data).name,
            on_progress=on_progress,
        )
    slices = slice_results(outcomes, recipe.adapter, result.set, task.metrics[0])
    return Scored(result, slices[0] if slices else None, refused)


@contextmanager
def _opened(home: Home, bundle: Path, recipe: Recipe, on: str, model: str, api_key_env: str) -> Iterator[Generator]:
    if on == PHONE:
        with _phone(home, bundle) as phone:
            yield phone
    elif on == TRANSFORMERS:
        from pocketloop.models.bases import load_with_adapter
        from pocketloop.models.generators import TransformersGenerator

        base = load_base_config(recipe.base)
        yield TransformersGenerator(*load_with_adapter(base, bundle / "adapter", "float32"), context=base.context)
    elif on.startswith(("http://", "https://")):
        from pocketloop.models.endpoint import EndpointConfig, EndpointGenerator

        if not model:
            raise ConfigError(f"--on {on}: name what is served there with --model")
        yield EndpointGenerator(EndpointConfig(base_url=on, model=model, api_key_env=api_key_env))
    elif Path(on).is_dir():
        from pocketloop.models.executorch import DATA, ExecuTorchGenerator

        shared = Path(on).parent / "base" / DATA
        with ExecuTorchGenerator(Path(on), shared if shared.is_file() else None) as program:
            yield program
    else:
        raise ConfigError(f"--on {on}: give {PHONE}, {TRANSFORMERS}, the folder of a lowered program, or an address")


def _phone(home: Home, bundle: Path) -> LlamaCppGenerator:
    from pocketloop.export.base import open_base
    from pocketloop.export.gguf_files import exported_file, skill_files

    described = ReleaseBundle.model_validate_json((bundle / "bundle.json").read_text(encoding="utf-8"))
    folder = home.bases / described.base_digest
    if not folder.is_dir():
        raise ModelError(
            f"base {described.base} {described.base_digest[:12]} is not prepared here; "
            f"`pocketloop prepare-base {described.base}`"
        )
    base = open_base(folder)
    files = skill_files(base, exported_file(bundle))
    return LlamaCppGenerator(files.model, base.tokenizer, files.adapter)


def decided_before(home: Home, bundle: Path, data: str) -> list[str]:
    """The versions of the bundle's adapter whose gates were judged on exactly these examples."""
    from pocketloop.data.example_files import read_examples
    from pocketloop.evaluation.spent import set_digest
    from pocketloop.registry.set_uses import uses_of

    recipe = Recipe.model_validate_json((bundle / "recipe.json").read_text(encoding="utf-8"))
    examples, _ = read_examples(data, recipe.task)
    wanted = {set_digest(examples)} | {
        set_digest(examples[: found.limit]) for found in recipe.evaluation.sets if found.limit and found.uri == data
    }
    found = [version for digest in wanted for version in uses_of(home, recipe.adapter, digest).decided]
    return list(dict.fromkeys(found))
