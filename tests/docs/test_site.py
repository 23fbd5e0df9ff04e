"""The pages keep what they promise: the site builds, links lead somewhere, commands exist, nothing is fetched."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from pocketloop.cli.main import app
from pocketloop.contracts.home import project_root

ROOT = project_root()
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("notebooks/*.md"),
        ROOT / "configs/bases/tiny/README.md",
    ]
)
FENCE = re.compile(r"^(?P<fence>`{3,})[^\n]*\n(?P<text>.*?)^(?P=fence)", re.M | re.S)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)|(?:src|href|srcset)=\"(?P<raw>[^\"]+)\"")


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_reference", ROOT / "scripts" / "docs_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class Loaded(HTMLParser):
    """Addresses that a browser fetches by itself when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        fetched = ("src", "srcset", "data", "poster")
        self.addresses += [value for key in fetched if (value := given.get(key))]
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(given.get("href") or "")


def anchors(page: Path) -> set[str]:
    """What headings and tags of a page can be linked by, as GitHub forms it."""
    prose = FENCE.sub("", page.read_text("utf-8"))
    found: dict[str, int] = {}
    out = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", prose))
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose, re.M):
        told = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", told).strip().replace(" ", "-")
        out.add(slug if slug not in found else f"{slug}-{found[slug]}")
        found[slug] = found.get(slug, 0) + 1
    return out


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_relative_link_leads_to_a_file_and_its_heading(page: Path) -> None:
    dead = []
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text("utf-8")))
    for found in LINK.finditer(prose):
        target, _, anchor = (found["target"] or found["raw"]).partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        there = (page.parent / target).resolve() if target else page
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            dead.append(found.group())
    assert not dead


def commands_of(page: Path) -> list[str]:
    """Calls of `pocketloop` in a page's code blocks, indented ones included, but for those shown to fail."""
    text = page.read_text("utf-8")
    blocks = [found["text"] for found in FENCE.finditer(text)]
    blocks += re.findall(r"(?:^(?: {4}|\t)\S.*\n)+", FENCE.sub("", text), re.M)
    out = []
    lines = re.sub(r"\\\n\s*", " ", "\n".join(blocks)).splitlines()
    for line, after in pairwise([*lines, ""]):
        call = re.match(r"^[\s$>]*(?:\.venv/bin/)?(pocketloop\s.*)$", line)
        if call and not after.startswith("error:"):
            out += [part for part in re.split(r"\s(?:&&|\||;)\s", call[1]) if part.startswith("pocketloop ")]
    return out


@cache
def whole() -> Any:
    return typer.main.get_command(app)


def mistake(call: str) -> str:
    """What the command line would not understand about a call; empty when nothing."""
    words = shlex.split(re.split(r"\s#\s|\s{2,}", call)[0].replace("[", "").replace("]", ""), comments=True)[1:]
    command = whole()
    while getattr(command, "commands", None):
        if not words:
            return "a group without its command" if command is not whole() else ""
        known = command.commands
        if words[0] not in known:
            if words[0].startswith("-"):
                return ""
            if "run" not in known:
                return f"no command {words[0]!r}"
            words = ["run", *words]
        command, words = known[words[0]], words[1:]
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help", "-h"}
    given = [word.split("=")[0] for word in words if re.match(r"^--?[a-z]", word)]
    unknown = [word for word in given if word not in options]
    return f"no option {', '.join(unknown)}" if unknown else ""


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_command_in_a_code_block_exists_with_its_options(page: Path) -> None:
    wrong = {call: why for call in commands_of(page) if (why := mistake(call))}
    assert not wrong


def test_a_command_or_option_that_does_not_exist_is_noticed() -> None:
    assert mistake("pocketloop retrian functions") == "no command 'retrian'"
    assert mistake("pocketloop retrain functions --sett a=1") == "no option --sett"
    assert mistake("pocketloop cdn") == "a group without its command"
    assert not mistake("pocketloop retrain functions --set a=1   # every night")
    assert not mistake("pocketloop evaluate functions --data mine.jsonl --json")


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_no_page_names_a_path_or_host_of_a_machine(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not re.findall(r"(?<![\w.:/])/(?:work|home|root|Users|tmp|mnt)/[\w./-]+", text)
    assert not re.findall(r"\b(?:10|172|192)(?:\.\d{1,3}){3}\b", text)


def test_the_first_page_stays_short() -> None:
    assert (ROOT / "README.md").read_text("utf-8").count("\n") <= 250


def test_every_decision_has_its_four_parts_on_at_most_forty_lines() -> None:
    pages = sorted(ROOT.glob("docs/decisions/0*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text("utf-8")
        parts = re.findall(r"^## (.+)$", text, re.M)
        assert parts == ["Context", "Decision", "Consequences", "What would change our mind"], page
        assert text.count("\n") <= 40, page


def test_every_section_and_key_of_a_recipe_is_on_its_page(reference: ModuleType) -> None:
    from pocketloop.contracts.recipe import Recipe

    page = reference.recipe_page()
    for part in (schema := Recipe.model_json_schema(), *schema["$defs"].values()):
        for key in part.get("properties", {}):
            assert f"\n| `{key}` |" in page
    assert '| `rollout` | text | `"standard"` | The canary ladder, `configs/rollouts/NAME.yaml`. |' in page
    assert "| `batch_size` | whole number | `16` | ≥ 1 |" in page


def test_every_command_is_on_its_page(reference: ModuleType) -> None:
    page = reference.commands_page()
    for words, _ in reference.commands(whole(), ("pocketloop",)):
        assert len(words) == 1 or f" {' '.join(words)}\n" in page


def test_links_of_the_first_page_lead_to_pages_of_the_site_and_others_become_text(reference: ModuleType) -> None:
    told = "[a](docs/gates.md#slices) ![b](docs/images/loop.svg) [c](CONTRIBUTING.md) [`d`](pyproject.toml) [e](https://x.org)"
    wanted = "[a](gates.md#slices) ![b](images/loop.svg) [c](contributing.md) `d` [e](https://x.org)"
    assert reference.led(told, "README.md", "index.md") == wanted
    assert reference.led("[a](../../README.md)", "docs/howto/x.md", "howto/x.md") == "[a](../index.md)"
    fenced = "```\n[x](y)\n```\n"
    assert reference.led(fenced, "README.md", "index.md") == fenced


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_has_a_page_for_each(site: Path) -> None:
    for page in (
        "index",
        "tutorial",
        "reference/recipe",
        "reference/commands",
        "reference/device",
        "security",
        "stacks",
    ):
        assert (site / f"{page}.html").stat().st_size > 1000


@pytest.mark.slow
def test_no_page_of_the_site_loads_anything_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(page.read_text("utf-8"))
        assert not [one for one in loaded.addresses if re.match(r"^(?:[a-z]+:)?//", one)], page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", sheet.read_text("utf-8")), sheet
    pages = "".join(page.read_text("utf-8") for page in site.rglob("*.html"))
    assert 'class="mermaid"' not in pages  # the theme would fetch its renderer from a CDN
