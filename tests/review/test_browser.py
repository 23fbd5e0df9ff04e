"""The review as a person does it: in Chromium, on MLflow's own pages, with its own button."""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from browsing import PATIENCE, choose_promotion, chromium, confirm
from sample_candidates import gates, register_sample
from served_mlflow import Mlflow
from tinymodels import save_tiny_adapter, save_tiny_model

from pocketloop.contracts.files import sha256_file
from pocketloop.contracts.home import project_root
from pocketloop.contracts.rollout import PlannedRung, RolloutPlan
from pocketloop.evaluation.card import adapter_card
from pocketloop.registry.history import write_history
from pocketloop.registry.mlflow_store import Candidate
from pocketloop.registry.review import ReviewedVersion, review

sys.path.append(str(Path(__file__).parents[1] / "evaluation"))
from evaluation_samples import sample_findings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

CLOSED_PANEL = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""
IMAGES = project_root() / "docs" / "images"
RELEASED = "functions.released"


class Base(NamedTuple):
    digest: str
    adapter: Path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A real tiny base and a real adapter that names it."""
    from pocketloop.export.gguf_lora import convert_lora
    from pocketloop.export.gguf_model import convert_model

    root = tmp_path_factory.mktemp("base")
    model = save_tiny_model(root / "model", "gemma3", layers=1)
    convert_model(model, root / "base.gguf", "F16")
    digest = sha256_file(root / "base.gguf")
    convert_lora(save_tiny_adapter(model, root / "peft"), model, digest, root / "adapter.gguf")
    return Base(digest, root / "adapter.gguf")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def sit_down(browser: Any, mlflow_server: Mlflow) -> Iterator[Any]:
    """Open a browser as somebody; their pages go when the test ends."""
    opened = []

    def person(user: str, password: str = "") -> Any:
        given = {"username": user, "password": password or mlflow_server.password(user)}
        context = browser.new_context(http_credentials=given, viewport={"width": 1120, "height": 860})
        context.set_default_timeout(PATIENCE)
        context.add_init_script(CLOSED_PANEL)
        opened.append(context)
        return context.new_page()

    yield person
    for context in opened:
        context.close()


def candidate_of(server: Mlflow, base: Base, folder: Path, verdict: Any = "pass") -> Candidate:
    rungs = [(1, 1.0, "hold"), (5, 1.4, "crashes"), (25, 1.0, "hold"), (50, 2.0, "hold"), (100, 0.0, "hold")]
    plan = RolloutPlan(
        ladder="standard",
        daily_devices=20_000,
        source="telemetry of the last 28 days",
        rungs=[PlannedRung(percent=percent, days=days, limited_by=limit) for percent, days, limit in rungs],
    )
    findings = sample_findings(rollout=plan)
    if verdict != "pass":
        findings = sample_findings(rollout=plan, decision=gates(verdict))
    card = adapter_card(findings, sha256_file(base.adapter))
    return register_sample(
        server.home, folder, "", file=base.adapter, base_digest=base.digest, decision=gates(verdict), card=card
    )


def promote(page: Any, server: Mlflow, found: Candidate) -> None:
    """Open the candidate's page and press the button; ends before MLflow has answered."""
    dialog = choose_promotion(page, server.url, "functions", found.version)
    photograph(page, "review-promote")
    confirm(dialog)


def newest(server: Mlflow, base: Base) -> ReviewedVersion:
    return review(server.home, "functions", known_bases=[base.digest])[-1]


def photograph(page: Any, name: str) -> None:
    """Keep a picture for the documentation when POCKETLOOP_SCREENSHOTS=1."""
    if os.environ.get("POCKETLOOP_SCREENSHOTS") != "1":
        return
    from io import BytesIO

    from PIL import Image

    IMAGES.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(800)  # the pages fade in
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)
    assert (IMAGES / f"{name}.png").stat().st_size < 150_000


def test_a_reviewer_reads_the_card_presses_the_button_and_the_copy_counts(
    mlflow_server: Mlflow, base: Base, sit_down: Any, tmp_path: Path
) -> None:
    found = candidate_of(mlflow_server, base, tmp_path / "one")
    page = sit_down("bob")
    page.goto(f"{mlflow_server.url}/#/models/functions/versions/{found.version}")
    page.get_by_role("heading", name="functions: ✓ pass").wait_for()
    for heading in ("Scores", "Gates", "Safety", "Exports", "Rollout plan"):
        page.get_by_role("heading", name=heading, exact=True).wait_for()
    page.get_by_role("cell", name="function_exact not more than 0.03 below champion").wait_for()
    page.get_by_text(sha256_file(base.adapter)).first.wait_for()
    photograph(page, "review-candidate")
    page.get_by_role("heading", name="Rollout plan").scroll_into_view_if_needed()
    photograph(page, "review-plan")
    promote(page, mlflow_server, found)
    page.wait_for_url("**/models/functions.released/versions/**")
    accepted = newest(mlflow_server, base)
    assert accepted.approval is not None
    assert (accepted.version, accepted.approval.file_digest) == (found.version, sha256_file(base.adapter))
    line = next(line for line in reversed(mlflow_server.audit()) if line["path"].endswith("model-versions/create"))
    assert (line["user"], line["model"], line["version"], line["status"]) == ("bob", RELEASED, accepted.released, 200)
    said = [
        (23, "started: 1 % of phones take version 1"),
        (24, "widened to 5 %: no guardrail is worse than allowed"),
        (26, "rolled back: crashes are 2.3 times those of the control (1.6 to 3.4)"),
    ]
    for day, text in said:
        at = datetime(2026, 11, day, 9, 30, tzinfo=UTC)
        write_history(mlflow_server.home, "functions", accepted.released, text, at=at)
    page.goto(f"{mlflow_server.url}/#/models/{RELEASED}/versions/{accepted.released}")
    page.reload()
    page.get_by_role("heading", name="functions: ✓ pass").wait_for()
    last = page.get_by_text("2026-11-26 09:30 UTC: rolled back")
    last.scroll_into_view_if_needed()
    photograph(page, "review-history")


def test_a_trainer_presses_the_same_button_and_nothing_is_released(
    mlflow_server: Mlflow, base: Base, sit_down: Any, tmp_path: Path
) -> None:
    found = candidate_of(mlflow_server, base, tmp_path / "one")
    before = len(review(mlflow_server.home, "functions", known_bases=[base.digest]))
    page = sit_down("alice")
    promote(page, mlflow_server, found)
    page.get_by_text("Permission denied").first.wait_for()
    photograph(page, "review-denied")
    assert len(review(mlflow_server.home, "functions", known_bases=[base.digest])) == before


def test_promoting_what_failed_shows_the_refusal_and_its_reason_on_the_page(
    mlflow_server: Mlflow, base: Base, sit_down: Any, tmp_path: Path
) -> None:
    found = candidate_of(mlflow_server, base, tmp_path / "one", "inconclusive")
    page = sit_down("bob")
    promote(page, mlflow_server, found)
    page.wait_for_url("**/models/functions.released/versions/**")
    refused = newest(mlflow_server, base)
    assert refused.verdict == "refused"
    page.reload()
    page.get_by_text(f"functions@{found.version} did not pass its gates").first.wait_for()
    page.get_by_text("Refused").first.wait_for()
    photograph(page, "review-refused")


def test_without_the_password_nothing_is_shown(mlflow_server: Mlflow, sit_down: Any) -> None:
    page = sit_down("bob", "guess")
    answer = page.goto(f"{mlflow_server.url}/")
    assert answer.status == 401
