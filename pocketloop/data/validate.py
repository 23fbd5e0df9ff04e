"""Validate: Great Expectations over descriptors of every record; a record that breaks a rule is left out.

Great Expectations only ever sees descriptors, and is asked for yes or no, never for the rows that failed.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Quarantined
from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import atomic_file, canonical_json, read_jsonl, write_jsonl
from pocketloop.contracts.recipe import Catalogue, Recipe
from pocketloop.contracts.reports import ValidationReport
from pocketloop.data.descriptors import Descriptors, describe_event, describe_example
from pocketloop.privacy.records import ScrubbedEvent

MIN_KEPT = 0.8
"""The stage fails when a larger share than 1 - `MIN_KEPT` of the rows breaks a rule: then the source is broken."""


@dataclass(frozen=True)
class Rule:
    """What every row must satisfy: `column` lies in [`low`, `high`]; the reason is given to a row that does not."""

    column: str
    low: float
    high: float
    reason: str

    def holds(self, row: Descriptors) -> bool:
        """Whether one row satisfies the rule."""
        return self.low <= float(row[self.column]) <= self.high


RULES = (
    Rule("has_answer", 1, 1, "no answer"),
    Rule("roles_ordered", 1, 1, "roles out of order"),
    Rule("turns", 2, 200, "too few or too many turns"),
    Rule("prompt_characters", 1, 20_000, "empty or overlong prompt"),
    Rule("answer_characters", 0, 8_000, "overlong answer"),
    Rule("garbled", 0, 0, "garbled text"),
    Rule("known_answer", 1, 1, "answer not in the catalogue"),
)


def validate(folder: Path, recipe: Recipe, catalogue: Catalogue | None, out: Path) -> ValidationReport:
    """Check the scrubbed events and the examples in `folder`; write those that pass to `out` under the same names.

    Also written: `quarantine.jsonl` (left out here and before), `descriptors.csv` (one row a kept record) and
    `validation.md`, the page for people.

    Raises:
        DataError: the dataset as a whole breaks an expectation, which the message names.
    """
    out.mkdir(parents=True, exist_ok=True)
    quarantine = list(read_jsonl(folder / "quarantine.jsonl"))
    rows: list[Descriptors] = []
    dropped: Counter[str] = Counter()
    for name in [*sorted(path.name for path in folder.glob("events-*.jsonl")), "examples.jsonl"]:
        with atomic_file(out / name) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for number, record, row in _described(folder / name, recipe, catalogue):
                broken = next((rule for rule in RULES if not rule.holds(row)), None)
                rows.append({**row, "kept": int(broken is None)})
                if broken is None:
                    file.write(canonical_json(record) + "\n")
                    continue
                dropped[broken.reason] += 1
                left_out = Quarantined(
                    stage="validate", reason=broken.reason, where=f"{name}:{number}", event_id=row["event_id"]
                )
                quarantine.append(left_out.model_dump(mode="json"))
    expectations = _great_expectations(rows, structured=recipe.task != "chat")
    broken_names = [name for name, holds in expectations.items() if not holds]
    report = ValidationReport(
        rows=len(rows),
        success=not broken_names,
        expectations=expectations,
        dropped=dict(sorted(dropped.items())),
    )
    if broken_names:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.dropped.items())
        raise DataError(
            f"the dataset does not hold what is expected of it: {'; '.join(broken_names)} "
            f"({len(rows)} rows{f', left out: {reasons}' if reasons else ''}); look at the source of the data"
        )
    write_jsonl(out / "quarantine.jsonl", quarantine)
    _write_csv(out / "descriptors.csv", [row for row in rows if row["kept"]])
    with atomic_file(out / "validation.md") as temporary:
        temporary.write_text(_page(report), encoding="utf-8")
    return report


def _described(
    path: Path, recipe: Recipe, catalogue: Catalogue | None
) -> Iterator[tuple[int, dict[str, Any], Descriptors]]:
    for number, record in enumerate(read_jsonl(path), start=1):
        if path.name == "examples.jsonl":
            yield number, record, describe_example(Example.model_validate(record), catalogue)
        else:
            yield number, record, describe_event(ScrubbedEvent.model_validate(record), recipe.task, catalogue)


def _great_expectations(rows: list[Descriptors], structured: bool) -> dict[str, bool]:
    """Whether each expectation holds, by what it says."""
    if not rows:
        return {"there is at least one row": False}
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # hundreds of lines while it is imported
    import great_expectations as gx
    import great_expectations.expectations as gxe
    import pandas as pd
    from great_expectations.data_context.types import base

    logging.getLogger(base.__name__).setLevel(logging.WARNING)  # sets its own level
    share = f"{MIN_KEPT:.0%} of the rows"
    expected: dict[str, Any] = {
        "there is at least one row": gxe.ExpectTableRowCountToBeBetween(min_value=1),
        "no event occurs twice": gxe.ExpectColumnValuesToBeUnique(column="event_id"),
        f"at least {share} break no rule": gxe.ExpectColumnValuesToBeBetween(
            column="kept", min_value=1, max_value=1, mostly=MIN_KEPT
        ),
    }
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
    found = definition.run(batch_parameters={"dataframe": pd.DataFrame(rows)}, result_format="BOOLEAN_ONLY")
    for single in found.results:
        result[single.expectation_config.meta["says"]] = bool(single.success)
    return {name: result[name] for name in expected}


def _write_csv(path: Path, rows: list[Descriptors]) -> None:
    import pandas as pd

    with atomic_file(path) as temporary:
        pd.DataFrame(rows).drop(columns=["event_id", "kept"]).to_csv(temporary, index=False)


def _page(report: ValidationReport) -> str:
    lines = ["# Validation", "", f"{report.rows} rows, {sum(report.dropped.values())} left out.", ""]
    lines += ["| expectation | holds |", "|---|---|"]
    lines += [f"| {name} | {'yes' if holds else '**no**'} |" for name, holds in report.expectations.items()]
    if report.dropped:
        lines += ["", "| left out because | rows |", "|---|---|"]
        lines += [f"| {reason} | {count} |" for reason, count in report.dropped.items()]
    return "\n".join(lines) + "\n"
