"""The examples that several stages read: a release's splits and a recipe's evaluation sets."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, PreferencePair, RatedAnswer
from pocketloop.contracts.files import Folder, read_jsonl
from pocketloop.contracts.recipe import Recipe
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.stage import Split

if TYPE_CHECKING:
    from pocketloop.safety.canaries import Canary

Row = TypeVar("Row", bound=BaseModel)


def split_examples(dataset: Folder, split: str, recipe: Recipe) -> list[Example]:
    """A split of a dataset release, its placeholders filled with made-up values when the recipe says so.

    Phones run adapters on raw words: a model that has only ever seen `<PERSON_3fa2b1>` could not copy a real name.
    """
    rows = map(Example.model_validate, read_jsonl(dataset / f"{split}.jsonl"))
    return [row.model_copy(update={"messages": _told(row.messages, row.example_id, recipe)}) for row in rows]


def split_data(dataset: Folder, split: str, recipe: Recipe) -> Split:
    """Everything that training can use of a split: right answers, preference pairs and rated answers.

    A pair's prompt and both answers name the same made-up person where they named the same one.
    """
    pairs, rated = [], []
    for pair in _rows(dataset / f"pairs/{split}.jsonl", PreferencePair):
        *prompt, chosen, rejected = _told([*pair.prompt, pair.chosen, pair.rejected], pair.pair_id, recipe)
        pairs.append(pair.model_copy(update={"prompt": prompt, "chosen": chosen, "rejected": rejected}))
    for answer in _rows(dataset / f"rated/{split}.jsonl", RatedAnswer):
        rated.append(answer.model_copy(update={"messages": _told(answer.messages, answer.rated_id, recipe)}))
    return Split(split_examples(dataset, split, recipe), pairs, rated)


def _rows(path: Path, kind: type[Row]) -> Iterator[Row]:
    if path.is_file():  # a release without feedback may lack it
        yield from map(kind.model_validate, read_jsonl(path))


def _told(messages: list[Message], name: str, recipe: Recipe) -> list[Message]:
    """The messages as training tells them; one name and seed always give the same made-up values."""
    from pocketloop.privacy.placeholders import fill

    return fill(messages, f"{recipe.train.seed}:{name}") if recipe.train.surrogates else messages


def planted(recipe: Recipe, task: TaskSpec) -> "list[Canary]":
    """The canaries that the recipe plants among the training examples: the same in every step of a run."""
    from pocketloop.safety.canaries import make_canaries

    return make_canaries(task, recipe.safety.canaries, f"{recipe.adapter} {recipe.train.seed}")


def evaluation_sets(dataset: Folder, recipe: Recipe) -> dict[str, list[Example]]:
    """The recipe's evaluation sets by name, the main one first; without any, the release's test split.

    Raises:
        DataError: a set is empty, or one of its lines cannot be used.
    """
    from pocketloop.data.example_files import explain, read_examples

    sets: dict[str, list[Example]] = {}
    for wanted in recipe.evaluation.sets:
        found, refused = read_examples(wanted.uri, recipe.task, wanted.role or "", wanted.turns)
        if refused:
            raise DataError(f"evaluation set {wanted.name!r} ({wanted.uri}): {explain(refused)}")
        sets[wanted.name] = found[: wanted.limit]
    sets = sets or {"test": split_examples(dataset, "test", recipe)}
    empty = next((name for name, found in sets.items() if not found), None)
    if empty:
        raise DataError(f"evaluation set {empty!r} is empty: name one under evaluation.sets, or raise data.test")
    return sets


def rendered(tokenizer: Any, task: TaskSpec, examples: Sequence[Example]) -> list[str]:
    """Whole conversations as the chat template renders them, answers included: what parity is measured on."""
    return [
        tokenizer.apply_chat_template(
            task.conversation(example.messages, example.role), tools=task.tools, tokenize=False
        )
        for example in examples
    ]
