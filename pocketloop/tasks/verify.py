"""What a program can verify of an answer in words: the checks that an example carries."""

import re

from pocketloop.contracts.examples import Check, EndsWithNumber, InOrder, SaysNoneOf, SaysOneOf

_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)?")


def passes(check: Check, answer: str) -> bool:
    """Whether an answer passes one check; texts are found as whole words, whatever the case of their letters."""
    match check:
        case SaysOneOf():
            return any(_says(answer, text) for text in check.any)
        case SaysNoneOf():
            return not any(_says(answer, text) for text in check.any)
        case EndsWithNumber():
            numbers = _NUMBER.findall(answer)
            return bool(numbers) and float(numbers[-1].replace(",", ".")) == check.value
        case InOrder():
            lines = [line for line in answer.splitlines() if line.strip()]
            return len(lines) == len(check.lines) and all(map(_says, lines, check.lines))


def _says(answer: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(text)}(?!\w)", answer, re.IGNORECASE) is not None
