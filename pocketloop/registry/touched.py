"""Which versions learned from a dataset release, and what the fleet runs of them."""

from collections.abc import Collection
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pocketloop.contracts.home import Home
from pocketloop.registry.mlflow_store import (
    Candidate,
    candidates,
    champion,
    client,
    released_name,
    source_of,
)

VersionState = Literal["candidate", "rejected", "released", "canary", "stable"]


class TouchedVersion(BaseModel):
    """A version, the release that it learned from, and how far it got: `stable` is what the fleet runs now."""

    model_config = ConfigDict(extra="forbid")

    adapter: str
    version: str
    dataset_digest: str
    state: VersionState


def versions_trained_on(home: Home, releases: Collection[str]) -> list[TouchedVersion]:
    """The versions of all adapters that learned from one of these dataset releases, newest first."""
    if not releases:
        return []
    found = [candidate for candidate in candidates(home) if candidate.dataset_digest in releases]
    released = {name: _released(home, name) for name in {candidate.adapter for candidate in found}}
    return [
        TouchedVersion(
            adapter=candidate.adapter,
            version=candidate.version,
            dataset_digest=candidate.dataset_digest,
            state=_state(candidate, released[candidate.adapter]),
        )
        for candidate in found
    ]


def _released(home: Home, adapter: str) -> dict[str, VersionState]:
    """Candidates' versions that a reviewer promoted, and how far the furthest copy of each got."""
    order: list[VersionState] = ["released", "canary", "stable"]
    states: dict[str, VersionState] = {}
    for copy in client(home).search_model_versions(f"name = '{released_name(adapter)}'"):
        source = source_of(adapter, copy)
        if source:
            state: VersionState = "canary" if copy.tags.get("rollout.state") == "running" else "released"
            states[source] = max(states.get(source, state), state, key=order.index)
    served = champion(home, adapter)
    return states | {served.version: "stable"} if served else states


def _state(candidate: Candidate, released: dict[str, VersionState]) -> VersionState:
    return released.get(candidate.version, "rejected" if candidate.rejected else "candidate")
