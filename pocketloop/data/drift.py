"""Drift: how far this data's descriptors lie from the previous release's, by Evidently."""

import warnings
from pathlib import Path
from typing import Any, Literal

from pocketloop.contracts.files import atomic_file, write_json
from pocketloop.contracts.recipe import DriftConfig, Recipe
from pocketloop.contracts.reports import DriftReport
from pocketloop.data.descriptors import NAMES, NUMBERS, read_descriptors

MIN_PSI = 0.2
"""A population stability index from which a shift counts as one: the rule of thumb of credit scoring."""

MAX_ROWS = 50_000

_BINS = 10
_NONE = "none"


def drift(validated: Path, recipe: Recipe, reference: Path | None, out: Path) -> DriftReport:
    """Compare `descriptors.parquet` in `validated` with that of the release in the folder `reference`.

    A column drifts when its population stability index exceeds `MIN_PSI` by more than chance gives: two samples of n
    and m rows from the same distribution over b bins have an index of about (b - 1)(1/n + 1/m). The share of columns
    that drifted is held against `drift.warn` and `drift.fail`. Of each side at most `MAX_ROWS` rows are looked at.

    Written to `out`: `drift.json` (the report) and, with a reference, `drift.html` (Evidently's page).

    Raises:
        DataError: there are no descriptors to compare.
    """
    import pyarrow.parquet as pq

    out.mkdir(parents=True, exist_ok=True)
    current = _sample(validated / "descriptors.parquet")
    rows = pq.read_metadata(validated / "descriptors.parquet").num_rows
    if reference is None:
        report = DriftReport(reference=None, rows=rows, share=0.0)
    else:
        columns, share = _compare(current, _sample(reference / "descriptors.parquet"), out / "drift.html")
        report = DriftReport(
            reference=reference.name, rows=rows, share=share, verdict=_verdict(share, recipe.drift), columns=columns
        )
    write_json(out / "drift.json", report)
    return report


def drift_bound(rows: int, reference_rows: int) -> float:
    """The index from which a column of two samples of these sizes counts as drifted (see `drift`)."""
    return MIN_PSI + (_BINS - 1) * (1 / rows + 1 / reference_rows)


def _verdict(share: float, config: DriftConfig) -> Literal["none", "warn", "fail"]:
    if share == 0:
        return "none"
    if config.fail is not None and share >= config.fail:
        return "fail"
    return "warn" if share >= config.warn else "none"


def _compare(current: Any, reference: Any, page: Path) -> tuple[dict[str, float], float]:
    """The index of each column that both have, and the share of columns that drifted; writes Evidently's page."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    numbers = [name for name in NUMBERS if name in current and name in reference]
    names = [name for name in NAMES if name in current and name in reference]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=names)
    now, before = (
        Dataset.from_pandas(
            pd.concat([frame[numbers].astype(float), frame[names].astype(object).fillna(_NONE)], axis=1), definition
        )
        for frame in (current, reference)
    )
    bound = drift_bound(len(current), len(reference))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a constant column divides by zero in correlations that are not used
        result = Report([DataDriftPreset(method="psi", threshold=bound)]).run(now, before)
        with atomic_file(page) as temporary:
            result.save_html(str(temporary))
    columns: dict[str, float] = {}
    share = 0.0
    for metric in result.dict()["metrics"]:
        if "column" in metric["config"]:
            columns[metric["config"]["column"]] = round(float(metric["value"]), 6)
        else:
            share = float(metric["value"]["share"])
    return columns, share


def _sample(path: Path) -> Any:
    """The descriptors, or `MAX_ROWS` of them drawn with a fixed seed."""
    import numpy as np

    frame = read_descriptors(path, [*NAMES, *NUMBERS])
    if len(frame) <= MAX_ROWS:
        return frame
    return frame.iloc[np.sort(np.random.default_rng(0).choice(len(frame), MAX_ROWS, replace=False))]
