"""A made-up fleet of household assistants: requests, events, personal data and harmful requests, all by seed."""

from pocketloop.data.demo._random import Split
from pocketloop.data.demo.events import demo_events
from pocketloop.data.demo.examples import demo_examples
from pocketloop.data.demo.pii import PiiRow, PiiSpan, demo_pii
from pocketloop.data.demo.safety import HarmfulRow, demo_harmful
from pocketloop.data.demo.shapes import SHAPES, demo_shape

__all__ = [
    "SHAPES",
    "HarmfulRow",
    "PiiRow",
    "PiiSpan",
    "Split",
    "demo_events",
    "demo_examples",
    "demo_harmful",
    "demo_pii",
    "demo_shape",
]
