"""Precision and recall of the scrubber by type, on labelled text."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.spans import Span, overlaps


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
    counts: dict[str, Counts] = {}
    for row in rows:
        text = row["text"]
        place = str(row.get("locale") or f"xx_{region}").replace("-", "_").split("_")[-1]
        found = scrubber.find(text, place if len(place) == 2 else region)
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
    return dict(sorted(counts.items()))
