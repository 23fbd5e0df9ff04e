import itertools
from pathlib import Path
from typing import Any

import pytest

from pocketloop.contracts.recipe import NerConfig, ScrubConfig
from pocketloop.data.demo.pii_heldout import Part, heldout_names, heldout_pii
from pocketloop.privacy.audit import ALL_TYPES, audit_key, cached_audit, estimate, leak_audit
from pocketloop.privacy.names import forgotten, gazetteer
from pocketloop.privacy.ner.package import MIN_PRECISION, MIN_PRECISION_OTHERS, MIN_RECALL, MIN_RECALL_STRUCTURED
from pocketloop.privacy.spans import PII_TYPES


@pytest.mark.slow
def test_the_scrubber_meets_its_floors_on_wordings_and_names_it_has_never_seen() -> None:
    """The shipped model on the final held-out set, with its names unknown to the gazetteer; n = 10,000."""
    rows = [row.model_dump() for row in heldout_pii("final", 10_000)]
    audit = leak_audit(ScrubConfig(), rows, heldout_names("final"))
    assert {line.type for line in audit.types} == {*PII_TYPES, ALL_TYPES}
    for line in audit.types:
        if line.type != ALL_TYPES:
            assert line.labelled >= 80, line
            assert line.recall.value >= MIN_RECALL.get(line.type, MIN_RECALL_STRUCTURED), line
        assert line.precision.value >= MIN_PRECISION.get(line.type, MIN_PRECISION_OTHERS), line


@pytest.mark.parametrize("part", ["first", "second", "third", "final"])
def test_held_out_rows_are_labelled_to_the_character_and_repeatable(part: Part) -> None:
    rows = list(heldout_pii(part, 300))
    assert rows == list(heldout_pii(part, 300))
    assert sum(not row.spans for row in rows) == 100
    for row in rows:
        for span in row.spans:
            value = row.text[span.start : span.end]
            assert value == value.strip() and value, row
        for before, after in itertools.pairwise(row.spans):
            assert before.end <= after.start


def test_the_sets_share_no_wording() -> None:
    from pocketloop.data.demo.pii_heldout import _templates

    parts: list[Part] = ["first", "second", "third", "final"]
    wordings = [{text for half in _templates(part) for text in half} for part in parts]
    assert min(map(len, wordings)) > 100
    assert len(set.union(*wordings)) == sum(map(len, wordings))


def test_an_audit_forgets_the_names_it_asks_about_and_remembers_them_afterwards() -> None:
    known = sorted(heldout_names("first") & set(gazetteer()))
    assert len(known) > 1000
    with forgotten(known):
        assert not set(known) & set(gazetteer())
    assert set(known) <= set(gazetteer())


def test_an_audit_is_made_once_for_a_scrubber_and_again_for_another(tmp_path: Path) -> None:
    calls = []

    def rows() -> list[dict[str, Any]]:
        calls.append(1)
        return [row.model_dump() for row in heldout_pii("first", 30)]

    config = ScrubConfig(ner=NerConfig(engine="none"))
    first = cached_audit(config, "a", rows, lambda: (), tmp_path)
    assert cached_audit(config, "a", rows, lambda: (), tmp_path) == first
    assert len(calls) == 1
    cached_audit(config.model_copy(update={"min_score": 0.5}), "a", rows, lambda: (), tmp_path)
    cached_audit(config, "b", rows, lambda: (), tmp_path)
    assert len(calls) == 3


def test_another_engine_has_another_audit_key() -> None:
    assert audit_key(ScrubConfig()) != audit_key(ScrubConfig(ner=NerConfig(engine="none")))


def test_wilson_intervals_agree_with_the_closed_form() -> None:
    z = 1.959963984540054
    for k, n in ((0, 10), (7, 10), (950, 1000), (1000, 1000)):
        p = k / n
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        result = estimate(k, n)
        assert result.low == pytest.approx(max(0, middle - half), abs=1e-9)
        assert result.high == pytest.approx(min(1, middle + half), abs=1e-9)
    assert (estimate(0, 0).low, estimate(0, 0).high) == (0.0, 1.0)
