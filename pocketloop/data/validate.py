"""Validate: Great Expectations over descriptors of every record; a record that breaks a rule is left out.

Great Expectations only ever sees descriptors, and is asked for yes or no, never for the rows that failed.
"""

import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Quarantined
from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import atomic_file, canonical_json
from pocketloop.contracts.recipe import Catalogue, Recipe
from pocketloop.contracts.reports import StageCount, ValidationReport
from pocketloop.data.descriptors import (
    FLAGS,
    NAMES,
    NUMBERS,
    DescriptorFile,
    Descriptors,
    describe_event,
    describe_example,
    read_descriptors,
)
from pocketloop.privacy.records import ScrubbedEvent

MIN_KEPT = 0.8
"""The stage fails when a larger share than 1 - `MIN_KEPT` of the rows breaks a rule: then the source is broken."""

_MARKS = ("kept", "repeated")


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

    Also written: `quarantine.jsonl` (left out here and before), `descriptors.parquet` (one row a kept record) and
    `validation.md`, the page for people. Records pass one at a time; about 100 bytes of each are held for Great
    Expectations.

    Raises:
        DataError: the dataset as a whole breaks an expectation, which the message names.
    """
    out.mkdir(parents=True, exist_ok=True)
    tally = _Tally()
    names = [*sorted(path.name for path in folder.glob("events-*.jsonl")), "examples.jsonl"]
    with tempfile.TemporaryDirectory(prefix=".descriptors-", dir=out) as scratch:
        every = Path(scratch) / "every.parquet"
        with (
            atomic_file(out / "quarantine.jsonl") as left_out,
            open(left_out, "w", encoding="utf-8") as quarantine,
            atomic_file(out / "descriptors.parquet") as kept,
            DescriptorFile(kept) as described,
            DescriptorFile(every, (*FLAGS, *_MARKS)) as checked,
        ):
            with open(folder / "quarantine.jsonl", encoding="utf-8") as earlier:
                quarantine.writelines(earlier)
            for name in names:
                with atomic_file(out / name) as temporary, open(temporary, "w", encoding="utf-8") as file:
                    for number, line, row in _described(folder / name, recipe, catalogue):
                        reason = tally.count(row)
                        checked.add(row)
                        if reason is None:
                            described.add(row)
                            file.write(line)
                        else:
                            quarantine.write(_left_out(reason, f"{name}:{number}", row["event_id"]))
        expectations = _great_expectations(every, tally.rows, structured=recipe.task != "chat")
    broken = [says for says, holds in expectations.items() if not holds]
    dropped = dict(sorted(tally.dropped.items()))
    if broken:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise DataError(
            f"the dataset does not hold what is expected of it: {'; '.join(broken)} "
            f"({tally.rows} rows{f', left out: {reasons}' if reasons else ''}); look at the source of the data"
        )
    kept_rows = tally.rows - tally.dropped.total()
    count = StageCount(stage="validate", entered=tally.rows, kept=kept_rows, left_out=dropped)
    report = ValidationReport(count=count, success=True, expectations=expectations)
    with atomic_file(out / "validation.md") as temporary:
        temporary.write_text(_page(report), encoding="utf-8")
    return report


@dataclass
class _Tally:
    """How many rows there were, and which events were seen: eight bytes in place of an id."""

    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    _seen: set[int] = field(default_factory=set)

    def count(self, row: Descriptors) -> str | None:
        """Mark the row `kept` and `repeated`; gives the reason to leave it out, if there is one."""
        broken = next((rule for rule in RULES if not rule.holds(row)), None)
        self.rows += 1
        row["kept"], row["repeated"] = int(broken is None), 0
        if row["event_id"] is not None:
            key = int.from_bytes(hashlib.blake2b(row["event_id"].encode(), digest_size=8).digest())
            row["repeated"] = int(key in self._seen)
            self._seen.add(key)
        if broken is None:
            return None
        self.dropped[broken.reason] += 1
        return broken.reason


def _left_out(reason: str, where: str, event_id: str | None) -> str:
    row = Quarantined(stage="validate", reason=reason, where=where, event_id=event_id)
    return canonical_json(row.model_dump(mode="json")) + "\n"


def _described(path: Path, recipe: Recipe, catalogue: Catalogue | None) -> Iterator[tuple[int, str, Descriptors]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if path.name == "examples.jsonl":
                yield number, line, describe_example(Example.model_validate_json(line), catalogue)
            else:
                yield number, line, describe_event(ScrubbedEvent.model_validate_json(line), recipe.task, catalogue)


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
