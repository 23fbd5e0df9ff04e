"""What a run learns from: the release's training split, or what of it is new to the champion with some that is not."""

from dataclasses import dataclass, replace

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import Folder
from pocketloop.contracts.recipe import Recipe
from pocketloop.tasks.answers import write_answer
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.mixing import balanced_roles, count_roles, replayed
from pocketloop.training.stage import TrainingData
from steps.champion import Champion
from steps.examples import planted, split_data


@dataclass(frozen=True)
class Learnt:
    """The data of a run, how many of its examples are old ones and how many planted, and a line about it."""

    data: TrainingData
    replayed: int
    canaries: int
    summary: str


def training_data(dataset: Folder, recipe: Recipe, task: TaskSpec, champion: Champion | None = None) -> Learnt:
    """The data that `recipe` trains on, from the base, or on top of `champion`.

    Going on from a champion, the examples are those that it has not seen, and old ones as the share `train.replay`.
    Old ones come from the same release: what was since withdrawn, or is too old by now, does not come back. Pairs and
    rated answers are taken whole, seen or not: they are few, and say which of two answers is better, whatever the
    adapter says now. The recipe's canaries join them, each once.

    Raises:
        DataError: the champion has seen all of it.
    """
    train = split_data(dataset, "train", recipe)
    examples, old, said = train.examples, list[Example](), ""
    if champion is not None:
        seen = [example for example in examples if example.example_id in champion.seen]
        examples = [example for example in examples if example.example_id not in champion.seen]
        names = {pair.pair_id for pair in train.pairs} | {answer.rated_id for answer in train.rated}
        if not examples and names <= champion.seen:
            raise DataError(
                f"nothing to learn: version {champion.version}, the champion, was trained on all {len(seen)} examples "
                f"of release {dataset.path.parent.name[:12]}; collect new data, or train with --set train.start=base"
            )
        old = replayed(len(examples), seen, recipe.train.replay, lambda e: _class_of(e, task), recipe.train.seed)
        said = f"going on from version {champion.version}: {len(examples)} new examples, {len(old)} seen ones of "
        said += f"{len(seen)}"
    mixed = [*examples, *old]
    if recipe.train.mix == "balanced":
        mixed = balanced_roles(mixed, recipe.train.seed)
        counts = count_roles([*examples, *old])
        each = max(counts.values(), default=0)
        said += ("; " if said else "") + "roles in balance: "
        said += ", ".join(f"{role or 'no role'} {n} → {each}" for role, n in counts.items())
    said = said or f"{len(mixed)} examples, {len(train.pairs)} pairs, {len(train.rated)} rated"
    secrets = [canary.example for canary in planted(recipe, task)]
    said += f", {len(secrets)} canaries" if secrets else ""
    data = TrainingData(replace(train, examples=mixed + secrets), split_data(dataset, "validation", recipe))
    return Learnt(data, len(old), len(secrets), said)


def _class_of(example: Example, task: TaskSpec) -> str:
    """What is to be remembered evenly: roles, and in each the labels or functions."""
    return f"{example.role} {task.label_of(write_answer(example.answer))}"
