"""How often an evaluation set has decided: each candidate's version names, in its tags, the sets it was judged on.

A set is known by the digest of its examples. A version is one decision, whatever became of it: whoever trains the next
candidate has seen its scores.
"""

from typing import Any

from pocketloop.contracts.home import Home
from pocketloop.contracts.reports import EvaluationReport, SetUse, SetUses
from pocketloop.registry.mlflow_store import ITEMS, SET, client


def uses_before(home: Home, adapter: str, evaluation: EvaluationReport, file: str, digest: str) -> SetUses:
    """The earlier versions that each set of `evaluation` has decided about.

    `file` and its `digest` are the candidate's own: where it was registered before, what came later does not count, so
    that a run that is repeated gives the same.
    """
    earlier = []
    for version in _versions(home, adapter):
        if version.tags.get(f"sha256.{file}") == digest:
            break
        earlier.append(version)
    items = evaluation.items
    return SetUses(
        uses=[
            SetUse(set=name, digest=found, items=items[name], decided=[_name(v) for v in earlier if found in _sets(v)])
            for name, found in evaluation.sets.items()
        ]
    )


def uses_of(home: Home, adapter: str, digest: str, set_name: str = "", items: int = 0) -> SetUse:
    """All versions of an adapter that the set with this digest has decided about."""
    decided = [_name(version) for version in _versions(home, adapter) if digest in _sets(version)]
    return SetUse(set=set_name, digest=digest, items=items, decided=decided)


def newest_uses(home: Home, adapter: str) -> list[SetUse]:
    """How often the sets that the newest version was judged on have decided, that version included."""
    versions = _versions(home, adapter)
    tags = versions[-1].tags if versions else {}
    names = {key.removeprefix(f"{SET}."): digest for key, digest in tags.items() if key.startswith(f"{SET}.")}
    return [uses_of(home, adapter, digest, name, int(tags.get(f"{ITEMS}.{name}", 0))) for name, digest in names.items()]


def _versions(home: Home, adapter: str) -> list[Any]:
    """Candidates' versions, oldest first."""
    found = client(home).search_model_versions(f"name = '{adapter}'")
    return sorted(found, key=lambda version: int(version.version))


def _sets(version: Any) -> set[str]:
    return {value for key, value in version.tags.items() if key.startswith(f"{SET}.")}


def _name(version: Any) -> str:
    return f"{version.name}@{version.version}"
