"""What a program can verify of an answer in words: the checks that an example carries."""

import json
import re

from pocketloop.contracts.examples import (
    Check,
    EndsWithNumber,
    HasLength,
    InOrder,
    Mentions,
    SaysNoneOf,
    SaysOneOf,
    Surrounded,
    Written,
)

_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)?")
_BULLET = re.compile(r"\s*(?:[-*•]|\d+[.)])\s+\S")
_SENTENCE = re.compile(r"[^.!?\s][^.!?]*(?:[.!?](?=\S)[^.!?]*)*")
_QUOTED = re.compile(r'"[^"]*"|“[^”]*”|«[^»]*»|„[^“]*“', re.DOTALL)


def passes(check: Check, answer: str) -> bool:
    """Whether an answer passes one check; texts are found as whole words, whatever the case of their letters."""
    match check:
        case SaysOneOf():
            return any(_times(answer, text) for text in check.any)
        case SaysNoneOf():
            return not any(_times(answer, text) for text in check.any)
        case EndsWithNumber():
            numbers = _NUMBER.findall(answer)
            return bool(numbers) and float(numbers[-1].replace(",", ".")) == check.value
        case InOrder():
            lines = _filled(answer.splitlines())
            return len(lines) == len(check.lines) and all(map(_times, lines, check.lines))
    return _keeps_form(check, answer)


def _keeps_form(check: HasLength | Mentions | Surrounded | Written, answer: str) -> bool:
    match check:
        case HasLength():
            return _within(_length(check.of, answer), check.min, check.max)
        case Mentions():
            return _within(_times(answer, check.text), check.min, check.max)
        case Surrounded():
            said, text = answer.strip().casefold(), check.text.strip().casefold()
            return said.startswith(text) if check.kind == "starts" else said.endswith(text)
        case Written():
            return _is_written(check, answer.strip())


def passes_loosely(check: Check, answer: str) -> bool:
    """Whether the answer passes as it is, without marks of emphasis, or without its first or last line or both.

    That is IFEval's loose accuracy (Zhou et al., 2023): "Sure, here it is:" before the right answer is forgiven.
    """
    lines = answer.strip().split("\n")
    cut = ["\n".join(kept) for kept in (lines, lines[1:], lines[:-1], lines[1:-1])]
    variants = [*cut, *(text.replace("*", "") for text in cut)]
    return any(passes(check, text) for text in [answer, *(text.strip() for text in variants if text.strip())])


def _times(answer: str, text: str) -> int:
    return sum(1 for _ in re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", answer, re.IGNORECASE))


def _within(value: int, low: int | None, high: int | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _filled(parts: list[str]) -> list[str]:
    return [part for part in parts if part.strip()]


def _length(of: str, answer: str) -> int:
    match of:
        case "words":
            return len(answer.split())
        case "sentences":
            return len(_SENTENCE.findall(answer))
        case "lines":
            return len(_filled(answer.splitlines()))
        case "paragraphs":
            return len(_filled(re.split(r"\n\s*\n", answer)))
        case "bullets":
            return sum(_BULLET.match(line) is not None for line in answer.splitlines())
    return len(answer.strip())


def _is_written(check: Written, said: str) -> bool:
    match check.form:
        case "lowercase":
            return said == said.lower()
        case "capitals":
            return said == said.upper()
        case "no commas":
            return "," not in said
        case "quoted":
            return _QUOTED.fullmatch(said) is not None
        case "json":
            return _is_json(check, said)


def _is_json(check: Written, said: str) -> bool:
    from jsonschema import Draft202012Validator

    fenced = re.fullmatch(r"```(?:json)?\s*\n(.*)\n```", said, re.DOTALL | re.IGNORECASE)
    try:
        value = json.loads(fenced[1] if fenced else said)
    except (ValueError, RecursionError):
        return False
    return check.schema_ is None or Draft202012Validator(check.schema_).is_valid(value)
