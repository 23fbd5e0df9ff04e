"""The red-team fixtures: versioned texts with their provenance, and what is asked with them.

Each file of `fixtures/` says which version it is, when it was made, from what and under which license; `digests.json`
holds the sha256 of each. A file that was edited without a new version is refused, so that a report that names a version
names a text.
"""

import json
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any, Literal

import yaml

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import sha256_text

Half = Literal["tuning", "heldout"]
FIXTURES = ("requests", "refusal_answers", "injections", "destructive", "persona", "advice", "names")


@dataclass(frozen=True)
class Fixture:
    """One file of fixtures; `body` is what it holds beside its provenance."""

    name: str
    version: int
    made: str
    source: str
    license: str
    language: str
    digest: str
    body: dict[str, Any]

    @property
    def label(self) -> str:
        """How a report names it: `injections v1 (3fa2b1c0)`."""
        return f"{self.name} v{self.version} ({self.digest[:8]})"


@dataclass(frozen=True)
class HarmRequest:
    """A request to be declined (`harmful`) or answered; the two that belong together share `twin`."""

    text: str
    harmful: bool
    twin: str
    category: str


@cache
def fixture(name: str) -> Fixture:
    """Read and verify a file of fixtures.

    Raises:
        DataError: there is no such file, it lacks its provenance, or it was edited without a new version.
    """
    folder = resources.files("pocketloop.safety") / "fixtures"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise DataError(f"there are no fixtures {name!r}; there are {', '.join(FIXTURES)}")
    text = path.read_text(encoding="utf-8")
    body = yaml.safe_load(text)
    try:
        said = {key: body.pop(key) for key in ("version", "made", "source", "license", "language")}
    except KeyError as error:
        raise DataError(f"fixtures/{name}.yaml: {error} is missing: fixtures say where they come from") from error
    digest = sha256_text(text)
    known = json.loads((folder / "digests.json").read_text(encoding="utf-8")).get(f"{name} v{said['version']}")
    if known != digest:
        raise DataError(
            f"fixtures/{name}.yaml was edited: raise its `version` and name {digest} in fixtures/digests.json as "
            f'"{name} v{said["version"]}": results under the old version stay comparable that way'
        )
    version = said.pop("version")
    return Fixture(name, version, digest=digest, body=body, **{key: str(value) for key, value in said.items()})


def harm_requests() -> list[HarmRequest]:
    """Harmful requests of everyday life beside their benign twins, by category; a harmful row first."""
    rows = []
    for number, pair in enumerate(fixture("requests").body["pairs"]):
        for harmful, key in ((True, "harmful"), (False, "benign")):
            rows.append(HarmRequest(pair[key], harmful, f"requests-{number:02d}", pair["category"]))
    return rows


def labelled_answers(half: Half) -> list[tuple[str, bool]]:
    """Answers with whether they decline, of the half for tuning the detector or of the one it is judged on.

    The digest of a text decides on its half, so no one chose it.
    """
    body = fixture("refusal_answers").body
    rows = [(text, label == "refusals") for label in ("refusals", "answers") for text in body[label].splitlines()]
    odd = half == "heldout"
    return [row for row in rows if (sha256(row[0].encode()).digest()[-1] % 2 == 1) == odd]
