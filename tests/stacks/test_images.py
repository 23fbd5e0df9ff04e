"""The images cannot be built here: what a build would trip over is looked for instead."""

import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from import_closure import ROOT, Closure, module
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pocketloop.contracts.errors import ConfigError
from stacks.images import commands, dockerfile, image_tag, requirements, run_all
from stacks.kinds import KIND_OF, KINDS, Kind

_OWN_PROCESS = {"train": "pocketloop.training.worker", "export": "pocketloop.export.measure_process"}
"""What a step starts in a process of its own, which following names does not find."""
_LOADED_BY_NAME = {"kfp", "kubernetes", "s3fs", "boto3", "mlflow"}
"""The clients of the stacks, which ZenML loads in every step."""
_OPTIONAL = {("data", "transformers")}
"""The scrubber's engines of transformers, which a recipe may name: they need an image of one's own."""
_TORCH = {"train", "export"}


def instructions(kind: Kind) -> list[list[str]]:
    """A Dockerfile's instructions, split into words; continued lines joined, comments and blank lines left out."""
    text = (ROOT / dockerfile(kind)).read_text().replace("\\\n", " ")
    return [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def listed(kind: Kind) -> list[Requirement]:
    lines = [line for path in requirements(kind) for line in (ROOT / path).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r "))]


@cache
def needed(name: str, extras: frozenset[str]) -> frozenset[Requirement]:
    """What an installed distribution needs here, with extras."""
    found = (Requirement(text) for text in requires(name) or [])
    return frozenset(
        r for r in found if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in (extras or {""}))
    )


def installed_by(kind: Kind) -> set[str]:
    """The distributions that an image holds: those listed, and all that they need."""
    todo = listed(kind) + ([Requirement("torch")] if kind in _TORCH else [])
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        wanted = todo.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key not in seen:
            seen.add(key)
            try:
                todo += [*needed(*key), *needed(key[0], frozenset())]
            except ModuleNotFoundError:  # not installed here, as CUDA's parts
                continue
    return {name for name, _ in seen}


def imported_by(kind: Kind) -> dict[str, set[str]]:
    """Top-level packages that the steps of a kind import, with the modules of ours that do."""
    closure = Closure()
    for file in (ROOT / "steps").glob("*.py"):
        found = module(f"steps.{file.stem}")
        for step in set(found.definitions) & set(KIND_OF) if found else set():
            if KIND_OF[step] == kind:
                closure.step(f"steps.{file.stem}", step)
    if kind in _OWN_PROCESS:
        closure.step(_OWN_PROCESS[kind], "main")
    return {name: by for name, by in closure.external.items() if name not in sys.stdlib_module_names}


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_holds_what_the_steps_of_its_kind_import(kind: Kind) -> None:
    held, provided = installed_by(kind), packages_distributions()
    lacking = {
        name: sorted(by)
        for name, by in {**{name: set() for name in _LOADED_BY_NAME}, **imported_by(kind)}.items()
        if (kind, name) not in _OPTIONAL
        and not held & {canonicalize_name(distribution) for distribution in provided.get(name, [name])}
    }
    assert lacking == {}


def test_the_data_image_needs_no_torch() -> None:
    assert "torch" not in imported_by("data")
    assert "torch" not in installed_by("data")
    assert {"torch", "trl"} <= set(imported_by("train"))
    assert {"torch", "llama_cpp"} <= set(imported_by("export"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_listed_package_is_locked_and_torch_is_the_projects_own(kind: Kind) -> None:
    locked = set(re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert {canonicalize_name(r.name) for r in listed(kind)} <= {canonicalize_name(name) for name in locked}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = re.findall(r"torch==[0-9.]+", (ROOT / dockerfile(kind)).read_text())
    assert pinned == ([next(d for d in project if d.startswith("torch=="))] if kind in _TORCH else [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_dockerfile_is_in_order_and_copies_what_is_there_and_let_through(kind: Kind) -> None:
    known = {"FROM", "RUN", "COPY", "WORKDIR", "ENV", "ARG", "USER"}
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    stages: list[str] = []
    copied: list[str] = []
    for word, *rest in instructions(kind):
        assert word in known
        if word == "FROM":
            assert rest[0].startswith("python:3.11-") or rest[0] in stages
            stages.append(rest[-1])
        if word == "COPY" and rest[0].startswith("--from="):
            assert rest[0].removeprefix("--from=") in stages
        elif word == "COPY":
            copied += rest[:-1]
            for source in rest[:-1]:
                assert (ROOT / source).exists(), source
                assert any(source == name or source.startswith(f"{name}/") for name in let_through), source
    assert copied.index("requirements.lock") < copied.index("configs")  # code is the last layer
    assert copied[-1] == "pocketloop"
    assert instructions(kind)[-1] == ["USER", "1000"]


def test_executorchs_environment_is_in_the_export_image_alone() -> None:
    assert "pte_environment()" in (ROOT / dockerfile("export")).read_text()
    assert not any("pte_environment" in (ROOT / dockerfile(kind)).read_text() for kind in ("data", "train"))


def test_an_image_brings_its_own_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pocketloop.contracts.home import Home

    monkeypatch.setenv("POCKETLOOP_ENVIRONMENTS", "/opt/environments")
    assert Home(tmp_path).environments == Path("/opt/environments")
    monkeypatch.delenv("POCKETLOOP_ENVIRONMENTS")
    assert Home(tmp_path).environments == Home(tmp_path).cache


def test_a_tag_follows_from_packages_and_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import stacks.images

    for name in ("requirements.lock", "deploy/images/data.in", "deploy/images/data.Dockerfile", "steps/one.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "deploy/images/common.in").write_text("zenml")
    monkeypatch.setattr(stacks.images, "project_root", lambda: tmp_path)
    packages, code = image_tag("data").split("-")
    (tmp_path / "steps/one.py").write_text("changed")
    assert image_tag("data").split("-")[0] == packages
    assert image_tag("data").split("-")[1] != code
    (tmp_path / "requirements.lock").write_text("changed")
    assert image_tag("data").split("-")[0] != packages


def test_builds_are_argument_lists_and_the_first_that_fails_ends_them(tmp_path: Path) -> None:
    wanted = commands("registry.example.com/team/", push=True)
    assert [command[:2] for command in wanted] == [["docker", "build"], ["docker", "push"]] * len(KINDS)
    assert wanted[0][-2] == wanted[1][-1] == f"registry.example.com/team/pocketloop-data:{image_tag('data')}"
    mark = tmp_path / "mark"
    with pytest.raises(ConfigError, match="ended with status 1"):
        run_all([["false"], ["touch", str(mark)]])
    assert not mark.exists()
    with pytest.raises(ConfigError, match="no-such-tool is not installed here"):
        run_all([["no-such-tool"]])


@pytest.mark.slow
def test_the_command_prints_what_it_would_run() -> None:
    command = [str(Path(sys.executable).with_name("pocketloop")), "stack", "images", "--registry", "registry/team"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split()[:2] for line in ran.stdout.splitlines()] == [["docker", "build"]] * len(KINDS)
