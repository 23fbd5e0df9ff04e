"""What a run learns from when not every example counts the same: roles in balance, and old examples beside new ones.

Everything here depends on the examples' ids and a seed alone, not on their order.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import sha256_text


def balanced_roles(examples: Sequence[Example], seed: int) -> list[Example]:
    """Repeat the examples of rare roles until every role is as frequent as the most frequent one.

    How often two examples of one role stand in the result differs by one at most.
    """
    by_role = _grouped(examples, lambda example: example.role)
    most = max((len(group) for group in by_role.values()), default=0)
    mixed = []
    for group in by_role.values():
        times, rest = divmod(most, len(group))
        mixed += [*group * times, *_drawn(group, rest, seed)]
    return mixed


def count_roles(examples: Sequence[Example]) -> dict[str, int]:
    """Examples by role, the most frequent first; the empty name is that of the task's own system text."""
    return dict(Counter(example.role for example in examples).most_common())


def replayed(
    new: int, seen: Sequence[Example], share: float, label_of: Callable[[Example], str], seed: int
) -> list[Example]:
    """The seen examples to learn from once more beside `new` unseen ones, so that they make up `share` of both.

    They are spread over the labels as evenly as the labels' sizes allow: what is rare is forgotten first. Fewer come
    back where fewer were seen.
    """
    by_label = _grouped(seen, label_of)
    wanted = min(len(seen), round(new * share / (1 - share)))
    sizes = {label: len(group) for label, group in by_label.items()}
    quota = _even(sizes, wanted)
    return [example for label, group in by_label.items() for example in _drawn(group, quota[label], seed)]


def _even(sizes: dict[str, int], total: int) -> dict[str, int]:
    """Shares of `total` that differ by at most one, except where a size allows no more."""
    quota = dict.fromkeys(sizes, 0)
    for place, label in enumerate(sorted(sizes, key=lambda label: (sizes[label], label))):
        quota[label] = min(sizes[label], total // (len(sizes) - place))
        total -= quota[label]
    return quota


def _drawn(group: Sequence[Example], count: int, seed: int) -> list[Example]:
    return sorted(group, key=lambda example: sha256_text(f"{seed} {example.example_id}"))[:count]


def _grouped(examples: Sequence[Example], key: Callable[[Example], str]) -> dict[str, list[Example]]:
    groups: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda example: example.example_id):
        groups.setdefault(key(example), []).append(example)
    return dict(sorted(groups.items()))
