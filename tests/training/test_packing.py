from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinymodels import ARCHITECTURES
from training_runs import settings, tiny_base, train

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.training import LoraConfig
from pocketloop.models.bases import load_base
from pocketloop.training import losses
from pocketloop.training.adapters import new_adapter
from pocketloop.training.losses import answer_states, project, total_cross_entropy
from pocketloop.training.packing import PackingCollator, pack

LENGTHS = [23, 5, 30, 14, 9, 41]


def rows(vocabulary: int) -> list[dict[str, list[int]]]:
    made = []
    for seed, length in enumerate(LENGTHS):
        ids = [(7 * seed + 13 * place + 5) % vocabulary for place in range(length)]
        made.append({"input_ids": ids, "labels": [-100] * (length - 3) + ids[-3:]})
    return made


def one_row(sequence: dict[str, list[int]]) -> dict[str, Any]:
    import torch

    return {name: torch.tensor([ids]) for name, ids in sequence.items()}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_packed_row_has_the_loss_and_the_gradients_of_its_sequences_apart(
    tmp_path: Path, architecture: Any, attention: str
) -> None:
    """Gemma's sliding window of 16 tokens is shorter than the sequences, and two rows are needed."""
    import torch

    model, tokenizer = load_base(tiny_base(tmp_path / "base", architecture), "float32")
    model = new_adapter(model, LoraConfig(r=2, dropout=0))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.set_attn_implementation(attention)
    causal = model.get_base_model()
    sequences = rows(len(tokenizer))

    def gradients() -> dict[str, Any]:
        found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
        model.zero_grad()
        return found

    batch = PackingCollator(attention, 64, tokenizer.pad_token_id)(sequences)
    assert batch["input_ids"].shape == (2, 64)
    packed = total_cross_entropy(causal, *answer_states(causal, batch))
    packed.backward()
    together = gradients()
    apart = [total_cross_entropy(causal, *answer_states(causal, one_row(sequence))) for sequence in sequences]
    sum(apart).backward()
    assert packed.item() == pytest.approx(sum(loss.item() for loss in apart), rel=1e-5)
    for name, gradient in gradients().items():
        torch.testing.assert_close(together[name], gradient, rtol=0, atol=1e-4 * float(gradient.abs().max()))


def test_an_attention_that_may_look_across_sequences_is_refused_and_flash_gets_one_row() -> None:
    with pytest.raises(ModelError, match="attention `paged` may look across the sequences"):
        PackingCollator("paged", 64, 0)
    batch = PackingCollator("flash_attention_2", 64, 0)(rows(100))
    assert batch["input_ids"].shape == (1, sum(LENGTHS))
    assert int((batch["position_ids"] == 0).sum()) == len(LENGTHS)


@given(st.lists(st.integers(1, 80), max_size=40), st.integers(1, 64))
def test_packing_places_every_sequence_once_and_overfills_no_row(lengths: list[int], capacity: int) -> None:
    packed = pack(lengths, capacity)
    assert sorted(index for row in packed for index in row) == list(range(len(lengths)))
    for row in packed:
        assert len(row) == 1 or sum(lengths[index] for index in row) <= capacity
    halves = sum(sum(lengths[index] for index in row) <= capacity / 2 for row in packed)
    assert halves <= 1


def test_packing_learns_what_padding_learns_and_reports_what_padding_wasted(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    padded = train(base, tmp_path / "padded", settings(epochs=1))
    packed = train(base, tmp_path / "packed", settings(epochs=1, packing=True))
    (ours,), (theirs,) = packed.stages, padded.stages
    assert (ours.steps, ours.tokens) == (theirs.steps, theirs.tokens)
    for (_, mine), (_, other) in zip(ours.curves["loss"], theirs.curves["loss"], strict=True):
        assert mine == pytest.approx(other, rel=1e-3)
    assert 0 < theirs.curves["padding"][0][1] < 0.5


def test_a_large_vocabularys_loss_in_chunks_is_the_loss_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    model, tokenizer = load_base(tiny_base(tmp_path / "base", final_logit_softcapping=5.0), "float32")
    hidden = torch.randn(41, model.config.hidden_size, requires_grad=True)
    tokens = torch.arange(41) % len(tokenizer)
    (whole,) = torch.autograd.grad(total_cross_entropy(model, hidden, tokens), hidden)
    most: list[int] = []
    monkeypatch.setattr(losses, "LARGE_VOCABULARY", 16)
    monkeypatch.setattr(losses, "CHUNK_POSITIONS", 8)
    monkeypatch.setattr(losses, "project", lambda causal, part: most.append(len(part)) or project(causal, part))
    (parts,) = torch.autograd.grad(total_cross_entropy(model, hidden, tokens), hidden)
    torch.testing.assert_close(parts, whole)
    assert max(most) == 8
