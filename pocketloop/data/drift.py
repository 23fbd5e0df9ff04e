"""Drift: how far this data's descriptors lie from the previous release's, by Evidently."""

import warnings
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import atomic_file, write_json
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import DriftReport
from pocketloop.data.descriptors import NAMES, NUMBERS

MIN_PSI = 0.2
"""A population stability index from which a shift counts as one: the rule of thumb of credit scoring."""

_BINS = 10


def drift(validated: Path, recipe: Recipe, reference: Path | None, out: Path) -> DriftReport:
    """Compare `descriptors.csv` in `validated` with that of the release in the folder `reference`.

    A column drifts when its population stability index exceeds `MIN_PSI` by more than chance gives: two samples of n
    and m rows from the same distribution over b bins have an index of about (b - 1)(1/n + 1/m).

    Written to `out`: `drift.json` (the report) and, with a reference, `drift.html` (Evidently's page).

    Raises:
        DataError: there are no descriptors to compare.
    """
    import pandas as pd

    out.mkdir(parents=True, exist_ok=True)
    current = _read(validated / "descriptors.csv")
    if reference is None:
        report = DriftReport(reference=None, rows=len(current), share=0.0, drifted=False)
    else:
        columns, share = _compare(current, _read(reference / "descriptors.csv"), out / "drift.html", pd)
        report = DriftReport(
            reference=reference.name,
            rows=len(current),
            share=share,
            drifted=share > recipe.drift.max_share,
            columns=columns,
        )
    write_json(out / "drift.json", report)
    return report


def _compare(current: Any, reference: Any, page: Path, pd: Any) -> tuple[dict[str, float], float]:
    """The index of each column that both have, and the share of columns that drifted; writes Evidently's page."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    numbers = [name for name in NUMBERS if name in current and name in reference]
    names = [name for name in NAMES if name in current and name in reference]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=names)
    now, before = (
        Dataset.from_pandas(pd.concat([frame[numbers].astype(float), frame[names]], axis=1), definition)
        for frame in (current, reference)
    )
    chance = (_BINS - 1) * (1 / len(current) + 1 / len(reference))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a constant column divides by zero in correlations that are not used
        result = Report([DataDriftPreset(method="psi", threshold=MIN_PSI + chance)]).run(now, before)
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


def _read(path: Path) -> Any:
    import pandas as pd

    if not path.is_file():
        raise DataError(f"{path}: no descriptors; validate the data first, or delete the release it belongs to")
    return pd.read_csv(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False)
