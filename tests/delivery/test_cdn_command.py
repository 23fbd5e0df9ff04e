"""`pocketloop cdn`, as an operator types it."""

import json
import shutil
from pathlib import Path

import pytest
import typer
from tuf_repository import BASE, approve, digest_of, policy, propose
from typer.testing import CliRunner, Result

from pocketloop.cli import cdn
from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.files import sha256_file, write_json
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_delivery
from pocketloop.contracts.reports import BaseManifest
from pocketloop.delivery.repository import Repository

APP = typer.Typer(rich_markup_mode=None)
cdn.add_to(APP)
APP.command("other")(lambda: None)
COMMANDS = "init status proposal sign publish discard export import add-base revoke rotate make-key refresh gc serve"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(APP, ["cdn", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def repository(home: Path) -> Repository:
    run("init")
    return Repository.open(load_delivery(), Home())


@pytest.mark.parametrize("command", COMMANDS.split())
def test_every_command_has_help_with_an_example(command: str) -> None:
    assert "Example" in run(command, "--help").output


def test_the_ceremony_says_what_to_ship_and_what_to_take_away(home: Path) -> None:
    said = run("init").output
    assert str(home / "keys" / "root.json") in said
    assert "move root-*.pem offline" in said
    with pytest.raises(DeliveryError, match="holds a repository already"):
        run("init")


def test_a_reviewer_reads_what_they_sign(repository: Repository, tmp_path: Path) -> None:
    digest = propose(repository, tmp_path, 3)
    shown = run("proposal").output
    for text in (digest, "functions", "version        3", BASE, "stable version 2"):
        assert text in shown
    assert "signed by reviewer-2" in run("sign", "--key", "reviewer-2").output
    with pytest.raises(DeliveryError, match="1 of 2 signatures"):
        run("publish")
    assert json.loads(run("sign", "--json").output)["complete"]
    assert "published" in run("publish").output
    assert digest[:12] in run("status").output
    assert "nothing waits" in run("proposal").output


def test_a_proposal_travels(repository: Repository, tmp_path: Path) -> None:
    propose(repository, tmp_path, 3)
    run("export", str(tmp_path / "proposal.json"))
    run("discard")
    assert "nothing waits" in run("proposal").output
    run("sign")
    assert "stable 2" in run("import", str(tmp_path / "proposal.json")).output


def test_a_base_is_found_by_name_digest_and_folder(repository: Repository, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "base.gguf"
    file.write_bytes(b"GGUF base")
    digest = sha256_file(file)
    folder = home / "bases" / digest
    folder.mkdir(parents=True)
    shutil.copy(file, folder)
    manifest = BaseManifest(
        base="tiny",
        architecture="gemma3",
        source="tiny",
        weights_digest="0" * 64,
        digest=digest,
        quantization="Q4_K_M",
        parameters=4,
        files={"base.gguf": digest},
        sizes={"base.gguf": 9},
        fallback_tensors=0,
        bits_per_weight=4.5,
        probes=0,
    )
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(DeliveryError, match=r"no prepared base 'big' \(prepared: tiny\)"):
        run("add-base", "big")
    for name in ("tiny", digest[:10], str(folder)):
        assert "stable 2" in run("add-base", name).output
    run("sign")
    run("publish")
    assert repository.bases()[digest].quantization == "Q4_K_M"
    (folder / "base.gguf").write_bytes(b"changed")
    with pytest.raises(DeliveryError, match="missing or was changed"):
        run("add-base", "tiny")


def test_a_revocation_takes_the_start_of_a_digest(repository: Repository, tmp_path: Path) -> None:
    approve(repository, tmp_path, 1)
    repository.set_policy(policy(1, stable=digest_of(1)))
    with pytest.raises(DeliveryError, match="no approved adapter or base has the digest"):
        run("revoke", digest_of(1)[:7], "--reason", "typo")
    run("revoke", digest_of(1)[:8], "--reason", "it [crashes]")
    assert "it [crashes]" in run("proposal").output
    run("sign")
    run("publish")
    shown = run("status").output
    assert f"revoked   {digest_of(1)[:12]}  it [crashes]" in shown
    assert "the base alone" in shown


def test_a_rotation_says_which_keys_are_elsewhere(repository: Repository, home: Path) -> None:
    (home / "keys" / "reviewer-1.pem").unlink()
    assert "rotated reviewer-1" in run("rotate", "reviewer-1").output
    (home / "keys" / "reviewer-4.pem").unlink()
    roles = {role["role"]: role for role in json.loads(run("status", "--json").output)["roles"]}
    assert [(key["name"], key["here"]) for key in roles["stable"]["keys"]] == [
        ("reviewer-2", True),
        ("reviewer-3", True),
        ("reviewer-4", False),
    ]


def test_refresh_and_garbage_collection_have_nothing_to_do_at_first(repository: Repository) -> None:
    assert "nothing expires soon" in run("refresh").output
    assert json.loads(run("refresh", "--json").output) == {"people": []}
    assert "0 files deleted" in run("gc").output
    assert json.loads(run("gc", "--json").output) == []


def test_a_key_is_made_where_its_owner_wants_it(tmp_path: Path, home: Path) -> None:
    run("make-key", "reviewer-4", "--folder", str(tmp_path / "stick"))
    assert {path.name for path in (tmp_path / "stick").iterdir()} == {"reviewer-4.pem", "reviewer-4.pub"}
