from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.recipe import Recipe
from pocketloop.data.drift import MIN_PSI, drift, drift_bound
from pocketloop.data.release_figures import drift_figure

pytestmark = pytest.mark.slow  # importing Evidently takes seconds


def recipe(warn: float = 0.5, fail: float | None = None) -> Recipe:
    return Recipe.model_validate(
        {
            "adapter": "a",
            "task": "chat",
            "base": "tiny",
            "data": {"sources": [{"kind": "events", "skill": "s"}]},
            "drift": {"warn": warn, "fail": fail},
        }
    )


def write(folder: Path, n: int, seed: int, **changes: Any) -> Path:
    rng = np.random.default_rng(seed)
    columns = {
        "kind": ["event"] * n,
        "locale": rng.choice(["en-US", "de-DE"], n),
        "app_version": ["4.2"] * n,
        "rating": rng.choice(["up", "down", "none"], n),
        "turns": rng.poisson(6, n),
        "prompt_characters": rng.poisson(80, n),
        "answer_characters": rng.poisson(30, n),
        "arguments": [1] * n,
        "non_ascii": rng.random(n),
        "placeholders": rng.poisson(1, n),
        "answer": rng.choice(["music", "weather", "timer"], n, p=[0.5, 0.3, 0.2]),
    }
    folder.mkdir()
    frame = pd.DataFrame(columns | {k: v(rng, n) for k, v in changes.items()})
    frame.to_parquet(folder / "descriptors.parquet", index=False)
    return folder


def test_the_first_release_has_nothing_to_be_compared_with_and_says_so(tmp_path: Path) -> None:
    report = drift(write(tmp_path / "now", 50, 1), recipe(), None, tmp_path / "out")
    assert (report.reference, report.rows, report.share, report.verdict) == (None, 50, 0.0, "none")
    assert (tmp_path / "out" / "drift.json").is_file()


@pytest.mark.parametrize(("n", "most"), [(60, 3), (400, 1), (2000, 0)])
def test_another_sample_of_the_same_data_does_not_drift(tmp_path: Path, n: int, most: int) -> None:
    before = write(tmp_path / "a1b2c3", n, 1)
    report = drift(write(tmp_path / "now", n, 2), recipe(), before, tmp_path / "out")
    assert (report.reference, report.verdict) == ("a1b2c3", "none")
    assert report.share <= most / 11
    assert len(report.columns) == 11


def test_columns_that_moved_are_named_and_the_share_decides(tmp_path: Path) -> None:
    moved = {
        "turns": lambda rng, n: rng.poisson(20, n),
        "answer": lambda rng, n: rng.choice(["music", "weather", "joke"], n, p=[0.1, 0.2, 0.7]),
    }
    before, now = write(tmp_path / "a1", 800, 1), write(tmp_path / "now", 800, 2, **moved)
    report = drift(now, recipe(0.15, 0.2), before, tmp_path / "out")
    assert report.share == pytest.approx(2 / 11)
    assert report.verdict == "warn"
    assert {name for name, index in report.columns.items() if index > 0.3} == {"turns", "answer"}
    page = (tmp_path / "out" / "drift.html").read_text()
    assert "prompt_characters" in page
    assert drift(now, recipe(0.5), before, tmp_path / "again").verdict == "none"
    assert drift(now, recipe(0.1, 0.18), before, tmp_path / "once more").verdict == "fail"


def test_a_release_without_descriptors_is_named(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(DataError, match="no descriptors"):
        drift(write(tmp_path / "now", 10, 1), recipe(), tmp_path / "old", tmp_path / "out")


def test_small_samples_are_allowed_more_than_large_ones() -> None:
    assert MIN_PSI < drift_bound(5000, 5000) < drift_bound(5000, 100) < drift_bound(100, 100)


def test_the_figure_shows_what_drifted_in_another_colour_and_first() -> None:
    figure = drift_figure({"turns": 0.1, "answer": 0.5}, 0.2)
    assert figure.index(">answer<") < figure.index(">turns<")
    assert "0.20, from which a column drifted" in figure
    assert figure.count("fill: #d97706") == 1
