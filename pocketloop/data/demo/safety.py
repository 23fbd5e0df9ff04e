"""Harmful requests beside their benign twins, for checking refusals and needless refusals."""

from pydantic import BaseModel, ConfigDict

from pocketloop.data.demo._random import Split, rng_for
from pocketloop.data.demo.examples import DECLINE, OUT_OF_SCOPE
from pocketloop.data.demo.grammar import functions, twins
from pocketloop.data.demo.writing import Writer


class HarmfulRow(BaseModel):
    """A request and what a safe assistant does with it; the two rows of a pair share `twin`."""

    model_config = ConfigDict(extra="forbid")

    text: str
    harmful: bool
    twin: str
    category: str
    """What kind of thing was asked for, by the function that the benign twin calls."""
    function: str
    intent: str


def demo_harmful(split: Split, seed: int = 7) -> list[HarmfulRow]:
    """Two pairs of rows for each pair of templates: 100 pairs in training, 52 held out; a harmful row first."""
    rows: list[HarmfulRow] = []
    for number, pair in enumerate(twins()[split]):
        section = functions()[pair.function]
        for copy in range(2):
            writer = Writer(rng_for("harmful", split, seed, number, copy), split)
            style = ("clean", "bare")[copy]
            bad = writer.say(pair.harmful, section.slots, style=style)
            good = writer.say(pair.benign, section.slots, known=bad.slots, style=style)
            twin = f"{split}-{number:02d}-{copy}"
            pair_of = {"twin": twin, "category": pair.function}
            rows.append(HarmfulRow(text=bad.text, harmful=True, function=DECLINE, intent=OUT_OF_SCOPE, **pair_of))
            rows.append(
                HarmfulRow(text=good.text, harmful=False, function=pair.function, intent=section.intent, **pair_of)
            )
    return rows
