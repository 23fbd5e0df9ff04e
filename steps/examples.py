"""The examples that several stages read: a release's splits and a recipe's evaluation sets."""

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import Folder, read_jsonl
from pocketloop.contracts.recipe import Recipe


def split_examples(dataset: Folder, split: str, recipe: Recipe) -> list[Example]:
    """A split of a dataset release, its placeholders filled with made-up values when the recipe says so.

    Phones run adapters on raw words: a model that has only ever seen `<PERSON_3fa2b1>` could not copy a real name.
    """
    from pocketloop.privacy.placeholders import fill

    examples = [Example.model_validate(row) for row in read_jsonl(dataset / f"{split}.jsonl")]
    if not recipe.train.surrogates:
        return examples
    return [
        example.model_copy(update={"messages": fill(example.messages, f"{recipe.train.seed}:{example.example_id}")})
        for example in examples
    ]


def evaluation_sets(dataset: Folder, recipe: Recipe) -> dict[str, list[Example]]:
    """The recipe's evaluation sets by name, the main one first; without any, the release's test split.

    Raises:
        DataError: a set is empty, or one of its lines cannot be used.
    """
    from pocketloop.data.example_files import read_examples

    sets: dict[str, list[Example]] = {}
    for wanted in recipe.evaluation.sets:
        found, refused = read_examples(wanted.uri, recipe.task)
        if refused:
            raise DataError(f"evaluation set {wanted.name}: {refused[0].where}: {refused[0].reason}")
        sets[wanted.name] = found[: wanted.limit]
    sets = sets or {"test": split_examples(dataset, "test", recipe)}
    empty = next((name for name, found in sets.items() if not found), None)
    if empty:
        raise DataError(f"evaluation set {empty!r} is empty: name one under evaluation.sets, or raise data.test")
    return sets
