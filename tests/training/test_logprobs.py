from pathlib import Path
from typing import Any

import pytest
from tinymodels import ARCHITECTURES, Architecture, save_tiny_adapter, save_tiny_model

from pocketloop.training import logprobs
from pocketloop.training.logprobs import answer_log_probs, pad_pairs, pair_log_probs, without_dropout

PAIRS = [
    (list(range(5, 25)), [30, 31, 32, 33, 34], [40, 41, 42, 43, 44, 45, 46, 47, 48]),
    (list(range(100, 140)), [50, 51, 52], [50, 61]),
    ([7], [8, 9], [10]),
]


def load(folder: Path, architecture: Architecture, **config: Any) -> Any:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = save_tiny_model(folder / "base", architecture, layers=2, **config)
    adapter = save_tiny_adapter(base, folder / "adapter", lora_dropout=0.5)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, str(adapter), is_trainable=True)


def alone(model: Any, prompt: list[int], answer: list[int]) -> float:
    """The answer's log-probability from the model's own logits on a row without padding."""
    import torch

    logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt) + place - 1, token].item() for place, token in enumerate(answer))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_that_share_their_prompt_are_as_probable_as_on_rows_of_their_own(
    tmp_path: Path, architecture: Architecture, attention: str
) -> None:
    """Gemma's window is 16 tokens: the prompts of 20 and 40 are longer than what its sliding layers see."""
    layers = {"layer_types": ["sliding_attention", "full_attention"]} if architecture == "gemma3" else {}
    model = load(tmp_path, architecture, **layers).eval()
    model.set_attn_implementation(attention)
    prompts, chosen, rejected = ([pair[part] for pair in PAIRS] for part in range(3))
    together = pair_log_probs(model.get_base_model(), pad_pairs(prompts, chosen, rejected)).tolist()
    for (prompt, good, bad), found in zip(PAIRS, together, strict=True):
        assert found == pytest.approx([alone(model, prompt, good), alone(model, prompt, bad)], abs=2e-4)


def test_a_soft_cap_on_the_logits_is_kept(tmp_path: Path) -> None:
    import torch

    model = load(tmp_path, "gemma3", final_logit_softcapping=2.0).eval()
    prompt, good, bad = PAIRS[0]
    found = pair_log_probs(model.get_base_model(), pad_pairs([prompt], [good], [bad]))[0, 0]
    assert found.item() == pytest.approx(alone(model, prompt, good), abs=2e-4)
    ids = torch.tensor([prompt + good])
    answered = torch.tensor([[0] * len(prompt) + [1] * len(good)])
    single = answer_log_probs(model.get_base_model(), ids, torch.ones_like(ids), answered)
    assert single.item() == pytest.approx(found.item(), abs=2e-4)


def test_logits_made_in_parts_give_the_same_log_probabilities_and_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    model = load(tmp_path, "qwen3").eval()
    prompts, chosen, rejected = ([pair[part] for pair in PAIRS] for part in range(3))
    found, gradients = [], []
    for large in (logprobs.LARGE_VOCABULARY, 1):
        monkeypatch.setattr(logprobs, "LARGE_VOCABULARY", large)
        monkeypatch.setattr(logprobs, "CHUNK_POSITIONS", 4)
        model.zero_grad()
        found.append(pair_log_probs(model.get_base_model(), pad_pairs(prompts, chosen, rejected)))
        found[-1].sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.allclose(found[0], found[1], atol=1e-4)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)


def test_dropout_is_off_only_inside(tmp_path: Path) -> None:
    import torch

    model = load(tmp_path, "llama").train()
    ids = torch.tensor([PAIRS[1][0]])
    with without_dropout(model):
        assert torch.equal(model(ids).logits, model(ids).logits)
    assert not torch.equal(model(ids).logits, model(ids).logits)


def test_pairs_never_go_through_attention_that_takes_no_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tmp_path, "llama")
    logprobs.choose_pair_attention(model, 64)
    assert model.config._attn_implementation == "eager"
    monkeypatch.setattr(logprobs, "choose_attention", lambda model, longest: "flash_attention_2")
    logprobs.choose_pair_attention(model, 64)
    assert model.config._attn_implementation == "sdpa"
