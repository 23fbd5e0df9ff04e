"""Seeded randomness, and the rule that decides which part of the vocabulary evaluation keeps for itself."""

import hashlib
import random
from typing import Literal

Split = Literal["train", "heldout"]
HELDOUT_BYTES = 64
"""Of 256: a quarter of every open vocabulary never occurs in training."""


def rng_for(*key: object) -> random.Random:
    """A generator that depends on nothing but `key`."""
    return random.Random("\x1f".join(map(str, key)))


def part_of(word: str) -> Split:
    """Which part a word belongs to: decided by its own letters, so that every list that holds it agrees."""
    first_byte = hashlib.sha256(word.casefold().encode()).digest()[0]
    return "heldout" if first_byte < HELDOUT_BYTES else "train"
