"""Validate: Great Expectations over descriptors of every record; a record that breaks a rule is left out.

Great Expectations only ever sees descriptors, and is asked for yes or no, never for the rows that failed.
"""

import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Quarantined
from pocketloop.contracts.files import atomic_file, canonical_json
from pocketloop.contracts.kept import kept_in, place
from pocketloop.contracts.recipe import Catalogue, Recipe
from pocketloop.contracts.reports import StageCount, ValidationReport
from pocketloop.data.checking import PASSED, RULES, Broken, broken, check, described
from pocketloop.data.descriptors import FLAGS, NAMES, NUMBERS, read_descriptors

MIN_KEPT = 0.8
"""The stage fails when a larger share than 1 - `MIN_KEPT` of the rows breaks a rule: then the source is broken."""

_MARKS = ("kept", "repeated")


def validate(
    folder: Path, recipe: Recipe, catalogue: Catalogue | None, out: Path, *, kept: Path | None = None
) -> ValidationReport:
    """Check the scrubbed events and the examples in `folder`; write those that pass to `out` under the same names.

    Also written: `quarantine.jsonl` (left out here and before), `descriptors.parquet` (one row a kept record) and
    `validation.md`, the page for people. What is known of each file is taken from the cache `kept`, if there is one;
    about 200 bytes of each record are held for Great Expectations.

    Raises:
        DataError: the dataset as a whole breaks an expectation, which the message names.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = [*sorted(path.name for path in folder.glob("events-*.jsonl")), "examples.jsonl"]
    dropped = Counter[str]()
    with kept_in(kept) as cache, tempfile.TemporaryDirectory(prefix=".descriptors-", dir=out) as scratch:
        entries = [check(folder / name, recipe, catalogue, cache) for name in names]
        with (
            atomic_file(out / "quarantine.jsonl") as left_out,
            open(left_out, "w", encoding="utf-8") as quarantine,
            open(folder / "quarantine.jsonl", encoding="utf-8") as earlier,
        ):
            quarantine.writelines(earlier)
            for name, entry in zip(names, entries, strict=True):
                place(entry / PASSED, out / name)
                for row in broken(entry):
                    dropped[row.reason] += 1
                    quarantine.write(_left_out(row, name))
        every = Path(scratch) / "every.parquet"
        rows = _write_descriptors(entries, out / "descriptors.parquet", every)
        expectations = _great_expectations(every, rows, structured=recipe.task != "chat")
    return _report(rows, dropped, expectations, out)


def _write_descriptors(entries: list[Path], kept: Path, every: Path) -> int:
    """Write the descriptors of the records that pass, and of all with their marks; returns the number of all."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = described(entries)
    pq.write_table(table, every)
    with atomic_file(kept) as temporary:
        passed = table.filter(pc.equal(table["kept"], 1)).select([*NAMES, *NUMBERS, *FLAGS])
        pq.write_table(passed, temporary)
    return int(table.num_rows)


def _report(rows: int, left_out: Counter[str], expectations: dict[str, bool], out: Path) -> ValidationReport:
    unmet = [says for says, holds in expectations.items() if not holds]
    dropped = dict(sorted(left_out.items()))
    if unmet:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise DataError(
            f"the dataset does not hold what is expected of it: {'; '.join(unmet)} "
            f"({rows} rows{f', left out: {reasons}' if reasons else ''}); look at the source of the data"
        )
    count = StageCount(stage="validate", entered=rows, kept=rows - left_out.total(), left_out=dropped)
    report = ValidationReport(count=count, success=True, expectations=expectations)
    with atomic_file(out / "validation.md") as temporary:
        temporary.write_text(_page(report), encoding="utf-8")
    return report


def _left_out(row: Broken, name: str) -> str:
    where = f"{name}:{row.number}"
    record = Quarantined(stage="validate", reason=row.reason, where=where, event_id=row.event_id)
    return canonical_json(record.model_dump(mode="json")) + "\n"


def _great_expectations(path: Path, rows: int, structured: bool) -> dict[str, bool]:
    """Whether each expectation holds of the descriptors in `path`, by what it says."""
    if not rows:
        return {"there is at least one row": False}
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # hundreds of lines while it is imported
    import great_expectations as gx
    from great_expectations.data_context.types import base

    logging.getLogger(base.__name__).setLevel(logging.WARNING)  # sets its own level
    expected = _expected(structured)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = base.ProgressBarsConfig(globally=False)
    batch = (
        context.data_sources.add_pandas("descriptors")
        .add_dataframe_asset("records")
        .add_batch_definition_whole_dataframe("all")
    )
    result: dict[str, bool] = {}
    for name, expectation in expected.items():
        expectation.meta = {"says": name}
    suite = context.suites.add(gx.ExpectationSuite(name="records", expectations=list(expected.values())))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="records", data=batch, suite=suite))
    found = definition.run(batch_parameters={"dataframe": read_descriptors(path)}, result_format="BOOLEAN_ONLY")
    for single in found.results:
        result[single.expectation_config.meta["says"]] = bool(single.success)
    return {name: result[name] for name in expected}


def _expected(structured: bool) -> dict[str, Any]:
    """Great Expectations' objects by what they say: the schema, the ranges, and the dataset as a whole."""
    import great_expectations.expectations as gxe

    share = f"{MIN_KEPT:.0%} of the rows"
    numbers = [*NUMBERS, *FLAGS, *_MARKS]
    expected: dict[str, Any] = {
        "there is at least one row": gxe.ExpectTableRowCountToBeBetween(min_value=1),
        "the columns are those of descriptors": gxe.ExpectTableColumnsToMatchOrderedList(
            column_list=[*NAMES, *numbers]
        ),
        "no event occurs twice": gxe.ExpectColumnValuesToBeBetween(column="repeated", min_value=0, max_value=0),
        f"at least {share} break no rule": gxe.ExpectColumnValuesToBeBetween(
            column="kept", min_value=1, max_value=1, mostly=MIN_KEPT
        ),
    }
    for name in NAMES:
        if name != "answer":  # of a person's own words there is no name
            expected[f"{name} is always given"] = gxe.ExpectColumnValuesToNotBeNull(column=name)
    for name in numbers:
        kind = "float32" if name == "non_ascii" else "int32"
        expected[f"{name} is a number ({kind})"] = gxe.ExpectColumnValuesToBeOfType(column=name, type_=kind)
    expected["non_ascii is in [0, 1]"] = gxe.ExpectColumnValuesToBeBetween(column="non_ascii", min_value=0, max_value=1)
    for rule in RULES:
        expected[f"{rule.column} is in [{rule.low:g}, {rule.high:g}] for at least {share}"] = (
            gxe.ExpectColumnValuesToBeBetween(
                column=rule.column, min_value=rule.low, max_value=rule.high, mostly=MIN_KEPT
            )
        )
    if structured:
        expected["at least two different answers occur"] = gxe.ExpectColumnUniqueValueCountToBeBetween(
            column="answer", min_value=2
        )
    return expected


def _page(report: ValidationReport) -> str:
    lines = [
        "# Validation",
        "",
        f"{report.count.entered} rows, {report.count.entered - report.count.kept} left out.",
        "",
    ]
    lines += ["| expectation | holds |", "|---|---|"]
    lines += [f"| {name} | {'yes' if holds else '**no**'} |" for name, holds in report.expectations.items()]
    if report.count.left_out:
        lines += ["", "| left out because | rows |", "|---|---|"]
        lines += [f"| {reason} | {count} |" for reason, count in report.count.left_out.items()]
    return "\n".join(lines) + "\n"
