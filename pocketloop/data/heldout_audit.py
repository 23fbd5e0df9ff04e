"""What a scrubber finds on labelled text that it was not made on: the figures of every scrub report."""

from pathlib import Path

from pocketloop.contracts.recipe import ScrubConfig
from pocketloop.contracts.reports import LeakAudit
from pocketloop.data.demo.pii_heldout import heldout_names, heldout_pii
from pocketloop.privacy.audit import cached_audit

ROWS = 10_000


def heldout_audit(config: ScrubConfig, cache: Path) -> LeakAudit:
    """Recall and precision by type on the final held-out texts, whose names no list knows; computed once a scrubber."""
    return cached_audit(
        config,
        f"pii_heldout final {ROWS}",
        lambda: (row.model_dump() for row in heldout_pii("final", ROWS)),
        lambda: heldout_names("final"),
        cache,
    )
