from pathlib import Path
from typing import Any

import pytest
from tinymodels import ARCHITECTURES, Architecture, save_tiny_adapter, save_tiny_model

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
    assert float(found) == pytest.approx(alone(model, prompt, good), abs=2e-4)
    ids = torch.tensor([prompt + good])
    answered = torch.tensor([[0] * len(prompt) + [1] * len(good)])
    single = answer_log_probs(model.get_base_model(), ids, torch.ones_like(ids), answered)
    assert float(single) == pytest.approx(float(found), abs=2e-4)


def test_dropout_is_off_only_inside(tmp_path: Path) -> None:
    import torch

    model = load(tmp_path, "llama").train()
    ids = torch.tensor([PAIRS[1][0]])
    with without_dropout(model):
        assert torch.equal(model(ids).logits, model(ids).logits)
    assert not torch.equal(model(ids).logits, model(ids).logits)
