from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preference_runs import make_stage, pairs, rated
from test_dpo import plain_log_prob
from tinymodels import ARCHITECTURES, Architecture

from pocketloop.contracts.errors import DataError
from pocketloop.models.bases import load_with_adapter
from pocketloop.training.kto import in_batches, make_trainer, train_kto, weights, with_others
from pocketloop.training.logprobs import without_dropout
from pocketloop.training.preference_data import EncodedRating, encode_ratings
from pocketloop.training.stage import Split, TrainingData

DATA = TrainingData(Split(rated=rated(60)), Split(pairs=pairs(24, offset=60), rated=rated(12, offset=60)))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_found_good_become_more_probable_and_those_found_bad_less(
    tmp_path: Path, architecture: Architecture
) -> None:
    stage = make_stage(tmp_path, "kto", DATA, architecture, epochs=8, batch_size=6, learning_rate=3e-3)
    report = train_kto(stage)
    assert report.metrics["rated_accuracy"].n == 12
    assert report.metrics["rated_accuracy"].value >= 0.75
    assert report.metrics["reward_accuracy"].n == 24
    assert report.metrics["reward_accuracy"].value >= 0.75
    assert report.metrics["preference_accuracy"].value > report.metrics["preference_accuracy_before"].value
    assert report.curves["validation_loss"][-1][1] < report.curves["validation_loss"][0][1]
    assert report.curves["margin"][-1][1] > 0
    assert {"kl", "accuracy"} <= set(report.curves)


def test_the_loss_is_the_papers(tmp_path: Path) -> None:
    import torch

    stage = make_stage(tmp_path, "kto", DATA, batch_size=6, beta=0.3)
    rows = with_others(encode_ratings(stage, DATA.train.rated), 6)
    with without_dropout(stage.model):
        trainer = make_trainer(stage, rows, [])
        trainer.ask_reference(rows, [])
        with torch.no_grad():
            for name, parameter in stage.model.named_parameters():
                if "lora_A" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        batch = trainer.data_collator([trainer.train_dataset[index] for index in range(6)])
        loss = trainer.compute_loss(stage.model.train(), batch)

    reference, _ = load_with_adapter(stage.base, stage.before, "float32")
    policy, reference = stage.model.eval(), reference.eval()

    def reward(prompt: list[int], answer: list[int]) -> float:
        return float((plain_log_prob(policy, prompt, answer) - plain_log_prob(reference, prompt, answer)).detach())

    some = [row.rating for row in rows[:6]]
    mismatched = [reward(one.prompt_ids, some[place - 1].completion_ids) for place, one in enumerate(some)]
    point = max(0.0, sum(mismatched) / 6)
    terms = []
    for one in some:
        above = 0.3 * (reward(one.prompt_ids, one.completion_ids) - point)
        value = 1 / (1 + torch.exp(torch.tensor(-above if one.label else above)))
        terms.append((60 / 80 if one.label else 60 / 40) * (1 - float(value)))  # 40 good answers and 20 bad ones
    assert sum(mismatched) > 0.1 or max(abs(term - 0.5) for term in terms) > 0.1
    assert loss.item() == pytest.approx(sum(terms) / 6, abs=1e-4)


ratings = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 9), st.booleans()).map(
        lambda one: EncodedRating([1] * one[0], [2] * one[1], one[2])
    ),
    min_size=2,
    max_size=60,
)


@given(ratings, st.integers(2, 9), st.integers(0, 5))
def test_batches_hold_every_answer_once_and_every_prompt_gets_another_answer_of_its_batch(
    some: list[EncodedRating], size: int, seed: int
) -> None:
    ordered = in_batches(some, size, seed)
    assert Counter(map(id, ordered)) == Counter(map(id, some))
    rows = with_others(ordered, size)
    assert [row.rating for row in rows] == ordered
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        if len(batch) > 1:
            own = Counter(id(row.rating.completion_ids) for row in batch)
            assert Counter(id(row.other) for row in batch) == own
        assert all(row.other is not row.rating.completion_ids for row in batch)


@given(st.integers(1, 50), st.integers(1, 50))
def test_good_and_bad_answers_weigh_the_same_in_total(good: int, bad: int) -> None:
    some = [EncodedRating([1], [2], True)] * good + [EncodedRating([1], [2], False)] * bad
    of_good, of_bad = weights(some)
    assert of_good * good == pytest.approx(of_bad * bad)
    assert of_good * good + of_bad * bad == pytest.approx(good + bad)


def test_answers_of_one_kind_alone_are_an_error_that_says_so(tmp_path: Path) -> None:
    good = [one for one in rated(12) if one.desirable]
    stage = make_stage(tmp_path, "kto", TrainingData(Split(rated=good)))
    with pytest.raises(DataError, match=r"train\.stages\.0\.kto: all 8 rated answers were found good"):
        train_kto(stage)
    stage = make_stage(tmp_path, "kto", TrainingData(Split()))
    with pytest.raises(DataError, match=r"none of the 0 rated answers"):
        train_kto(stage)


def test_answers_that_do_not_fit_are_left_out_and_counted(tmp_path: Path) -> None:
    long = rated(1)[0].model_copy(deep=True)
    long.messages[0].content = "timer please " * 40
    stage = make_stage(tmp_path, "kto", TrainingData(Split(rated=[*rated(8), long])), epochs=1)
    report = train_kto(stage)
    assert report.left_out == {"answer beyond max_length": 1}
    assert report.examples == 8
    assert report.tokens == sum(one.length for one in encode_ratings(stage, rated(8)))
