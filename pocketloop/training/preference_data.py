"""Preference pairs and rated answers as token ids: the very tokens of inference, then the answer and its end."""

from collections.abc import Sequence
from dataclasses import dataclass

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import PreferencePair, RatedAnswer
from pocketloop.models.chat import encode_prompt
from pocketloop.training.stage import StageRun
from pocketloop.training.tokens import SequenceEncoder

TOO_LONG = "answer beyond max_length"
SAME_ANSWERS = "chosen equals rejected"


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of a prompt, of the better answer and of the worse one; each answer ends with the end of the turn."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the prompt with the longer answer."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def row_length(self) -> int:
        """Tokens of the prompt with both answers."""
        return len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)


@dataclass(frozen=True)
class EncodedRating:
    """Token ids of a prompt and of an answer that was found good (`label`) or bad."""

    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool

    @property
    def length(self) -> int:
        """Tokens of the prompt with the answer."""
        return len(self.prompt_ids) + len(self.completion_ids)


def encode_pair(encoder: SequenceEncoder, pair: PreferencePair) -> EncodedPair:
    """Tokens of `pair`, however long."""
    prompt, chosen = encode_answer(encoder, [*pair.prompt, pair.chosen], pair.role)
    _, rejected = encode_answer(encoder, [*pair.prompt, pair.rejected], pair.role)
    return EncodedPair(prompt, chosen, rejected)


def encode_rating(encoder: SequenceEncoder, rated: RatedAnswer) -> EncodedRating:
    """Tokens of `rated`, however long."""
    prompt, answer = encode_answer(encoder, rated.messages, rated.role)
    return EncodedRating(prompt, answer, rated.desirable)


def encode_answer(encoder: SequenceEncoder, messages: Sequence[Message], role: str = "") -> tuple[list[int], list[int]]:
    """(prompt ids, answer ids) of a conversation that ends with an answer, as `SequenceEncoder` encodes an example."""
    conversation = encoder.task.conversation(list(messages), role)
    prompt = encode_prompt(encoder.tokenizer, conversation[:-1], encoder.task.tools)
    said: list[int] = encoder.tokenizer(conversation[-1]["content"], add_special_tokens=False)["input_ids"]
    return prompt, [*said, encoder.end]


def encode_pairs(stage: StageRun, pairs: Sequence[PreferencePair]) -> list[EncodedPair]:
    """The pairs that can be learnt from; those that do not fit or do not differ are counted in `stage.left_out`."""
    encoder = stage.encoder()
    encoded = [encode_pair(encoder, pair) for pair in pairs]
    differing = [pair for pair in encoded if pair.chosen_ids != pair.rejected_ids]
    fitting = [pair for pair in differing if pair.length <= stage.config.max_length]
    leave_out(stage, SAME_ANSWERS, len(encoded) - len(differing))
    leave_out(stage, TOO_LONG, len(differing) - len(fitting))
    return fitting


def encode_ratings(stage: StageRun, rated: Sequence[RatedAnswer]) -> list[EncodedRating]:
    """The rated answers that fit; the others are counted in `stage.left_out`."""
    encoder = stage.encoder()
    encoded = [encode_rating(encoder, one) for one in rated]
    fitting = [one for one in encoded if one.length <= stage.config.max_length]
    leave_out(stage, TOO_LONG, len(encoded) - len(fitting))
    return fitting


def leave_out(stage: StageRun, reason: str, count: int) -> None:
    """Count what the stage cannot use."""
    if count:
        stage.left_out[reason] = stage.left_out.get(reason, 0) + count


def training_pairs(stage: StageRun) -> tuple[list[EncodedPair], list[EncodedPair]]:
    """The stage's pairs to learn from, and the held-out ones, shortest first.

    Raises:
        DataError: there is none to learn from.
    """
    pairs = encode_pairs(stage, stage.data.train.pairs)
    if not pairs:
        raise DataError(
            f"{stage.key}: none of the {len(stage.data.train.pairs)} training pairs can be learnt from "
            f"({_reasons(stage)}); raise {stage.key}.max_length, or see label.pairs for what makes pairs"
        )
    return pairs, sorted(encode_pairs(stage, stage.data.validation.pairs), key=lambda pair: pair.length)


def training_ratings(stage: StageRun) -> tuple[list[EncodedRating], list[EncodedRating]]:
    """The stage's rated answers to learn from, and the held-out ones.

    Raises:
        DataError: there are none to learn from, or all of them are good, or all bad.
    """
    rated = encode_ratings(stage, stage.data.train.rated)
    good = sum(one.label for one in rated)
    if not rated:
        raise DataError(
            f"{stage.key}: none of the {len(stage.data.train.rated)} rated answers can be learnt from "
            f"({_reasons(stage)}); raise {stage.key}.max_length, or see label.pairs for what becomes of feedback"
        )
    if good in (0, len(rated)):
        raise DataError(
            f"{stage.key}: all {len(rated)} rated answers were found {'good' if good else 'bad'}; "
            f"this stage learns from the difference: collect both kinds, or leave the stage out"
        )
    return rated, encode_ratings(stage, stage.data.validation.rated)


def _reasons(stage: StageRun) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in stage.left_out.items()) or "there are no pairs"
