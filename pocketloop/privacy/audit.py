"""Precision and recall of the scrubber by type, on labelled text that it was not made on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketloop.contracts.files import canonical_json, sha256_text, write_json
from pocketloop.contracts.recipe import ScrubConfig
from pocketloop.contracts.reports import Estimate, LeakAudit, TypeRecall
from pocketloop.privacy.names import forgotten
from pocketloop.privacy.ner.model import EMBEDDED
from pocketloop.privacy.recognizers import Analyzer
from pocketloop.privacy.scrubber import Scrubber, scrubbing_digest
from pocketloop.privacy.spans import Span, overlaps
from pocketloop.privacy.values import clean_text

ALL_TYPES = "ALL"
"""The audit's last line: every type together."""


@dataclass
class Counts:
    """Labelled spans of one type that were covered whole, in part or not at all, and finds that nothing labels."""

    whole: int = 0
    part: int = 0
    missed: int = 0
    spurious: int = 0

    @property
    def recall(self) -> float:
        """Share of labelled spans of which nothing was left; a part found is a part leaked, so it does not count."""
        labelled = self.whole + self.part + self.missed
        return self.whole / labelled if labelled else float("nan")

    @property
    def precision(self) -> float:
        """Share of finds that touch a labelled span."""
        found = self.whole + self.part + self.spurious
        return (self.whole + self.part) / found if found else float("nan")


def audit(scrubber: Scrubber, rows: Iterable[dict[str, Any]], region: str = "US") -> dict[str, Counts]:
    """Compare the scrubber with labels, by type.

    Args:
        scrubber: what is measured; restrict its types to measure fewer.
        rows: `{"text": …, "spans": [{"start", "end", "type"}]}`, optionally with `locale` (`de_DE`).
        region: where the speaker dials from when a row does not say.

    A labelled span counts under its own type whatever type covered it, since what matters is that it is gone. A find
    that touches no label is spurious under the type found.
    """
    known = list(rows)
    regions = [_region(row) or region for row in known]
    found = scrubber.analyzer.find_many([clean_text(row["text"]) for row in known], regions)
    counts: dict[str, Counts] = {}
    for row, spans in zip(known, found, strict=True):
        text = clean_text(row["text"])
        _count(counts, row, scrubber.wanted.of(scrubber.wanted.sure(text, spans)))
    return dict(sorted(counts.items()))


def _region(row: dict[str, Any]) -> str:
    place = str(row.get("locale") or "").replace("-", "_").split("_")[-1]
    return place if len(place) == 2 and place.isupper() else ""


def _count(counts: dict[str, Counts], row: dict[str, Any], found: list[Span]) -> None:
    text = row["text"]
    labelled = [Span(s["start"], s["end"], s["type"]) for s in row["spans"]]
    for span in labelled:
        tally = counts.setdefault(span.type, Counts())
        bare = [i for i in range(span.start, span.end) if text[i].isalnum()]
        covered = [i for i in bare if any(f.start <= i < f.end for f in found)]
        if len(covered) == len(bare):
            tally.whole += 1
        elif covered:
            tally.part += 1
        else:
            tally.missed += 1
    for span in found:
        if not any(overlaps(span, other) for other in labelled):
            counts.setdefault(span.type, Counts()).spurious += 1


def leak_audit(
    config: ScrubConfig, rows: Iterable[dict[str, Any]], unknown: Iterable[str] = (), embedded: Path = EMBEDDED
) -> LeakAudit:
    """The scrubber that `config` describes, on labelled rows as `audit` takes them; the last line is over all types.

    `unknown`: lower-cased words of names that the gazetteer is not to know meanwhile, so that what is measured is how
    names are found that nobody has listed. `embedded`: where the model of the engine `embedded` lies.
    """
    known = list(rows)
    with forgotten(unknown):
        scrubber = Scrubber(config, bytes(32))
        scrubber.analyzer = Analyzer(config.ner, embedded=embedded)
        counts = audit(scrubber, known)
    return LeakAudit(scrubber=audit_key(config, embedded), rows=len(known), types=_lines(counts))


def cached_audit(
    config: ScrubConfig,
    name: str,
    rows: Callable[[], Iterable[dict[str, Any]]],
    unknown: Callable[[], Iterable[str]],
    cache: Path,
) -> LeakAudit:
    """`leak_audit` of the rows called `name`, at most once for one analyzer, code and set of types."""
    path = cache / f"audit-{sha256_text(name)[:12]}-{audit_key(config)}.json"
    if path.is_file():
        return LeakAudit.model_validate_json(path.read_text(encoding="utf-8"))
    result = leak_audit(config, rows(), unknown())
    write_json(path, result)
    return result


def audit_key(config: ScrubConfig, embedded: Path = EMBEDDED) -> str:
    """Digest of what an audit's figures depend on; a scrubber's key and slots change none of them."""
    version = Analyzer(config.ner, embedded=embedded).version
    return sha256_text(canonical_json([config.model_dump(mode="json"), version, scrubbing_digest()]))[:16]


def estimate(successes: int, n: int) -> Estimate:
    """A proportion with its Wilson 95 % interval; of nothing, nothing is known."""
    from scipy.stats import binomtest

    if n == 0:
        return Estimate(value=0.0, n=0, low=0.0, high=1.0)
    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return Estimate(value=successes / n, n=n, low=float(interval.low), high=float(interval.high))


def _lines(counts: dict[str, Counts]) -> list[TypeRecall]:
    total = Counts()
    for tally in counts.values():
        for field in ("whole", "part", "missed", "spurious"):
            setattr(total, field, getattr(total, field) + getattr(tally, field))
    return [_line(kind, tally) for kind, tally in [*counts.items(), (ALL_TYPES, total)]]


def _line(kind: str, tally: Counts) -> TypeRecall:
    labelled, touched = tally.whole + tally.part + tally.missed, tally.whole + tally.part
    return TypeRecall(
        type=kind,
        labelled=labelled,
        whole=tally.whole,
        spurious=tally.spurious,
        recall=estimate(tally.whole, labelled),
        precision=estimate(touched, touched + tally.spurious),
    )
