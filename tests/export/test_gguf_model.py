"""The converter against two oracles: transformers for what a model says, the `gguf` reader for what a file holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinymodels import LLAMA3_ROPE, save_tiny_model

from pocketloop.contracts.errors import ExportError, ModelError
from pocketloop.export.gguf_model import convert_model

TEXT = "Wake me up at 7:30 tomorrow, please, and add 2 loaves of bread to my list. ¿Qué tal, Jürgen? 你好"

GEMMA_LINEAR = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "gemma3": {"architecture": "gemma3"},
    "gemma3 with stretched positions": {"architecture": "gemma3", "rope": GEMMA_LINEAR},
    "gemma3 with capped logits": {"architecture": "gemma3", "final_logit_softcapping": 5.0},
    "llama": {"architecture": "llama"},
    "llama with llama3 positions": {"architecture": "llama", "rope": LLAMA3_ROPE},
    "llama with tied embeddings": {"architecture": "llama", "tie_word_embeddings": True},
    "qwen2": {"architecture": "qwen2"},
    "qwen2 with its own output": {"architecture": "qwen2", "tie_word_embeddings": False},
    "qwen3": {"architecture": "qwen3"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_llama_cpp_gives_the_logits_of_transformers(variant: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from pocketloop.models.llama_cpp import LlamaCppGenerator

    folder = save_tiny_model(tmp_path / "model", **VARIANTS[variant])
    convert_model(folder, tmp_path / "model.gguf", "F32")
    with LlamaCppGenerator(tmp_path / "model.gguf", folder, threads=1, exact=True) as generator:
        ids = generator.tokenizer(TEXT)["input_ids"]
        found = generator.logits([ids])[0]
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(torch.tensor([ids])).logits[0]
    # ggml takes Gemma's GELU from a float16 table; the rest is float32 on both sides.
    tolerance = 1e-2 if "gemma3" in variant else 1e-4
    assert np.abs(found - expected.numpy()).max() < tolerance * float(expected.std())


def test_half_precision_changes_little(tmp_path: Path) -> None:
    from pocketloop.models.llama_cpp import LlamaCppGenerator

    folder = save_tiny_model(tmp_path / "model", "llama")
    logits = []
    for dtype in ("F32", "F16"):
        convert_model(folder, tmp_path / f"{dtype}.gguf", dtype)
        with LlamaCppGenerator(tmp_path / f"{dtype}.gguf", folder, threads=1, exact=True) as generator:
            logits.append(generator.logits([generator.tokenizer(TEXT)["input_ids"]])[0])
    assert np.abs(logits[0] - logits[1]).max() < 1e-2 * logits[0].std()


def test_the_file_holds_the_keys_and_tensors_that_llama_cpp_reads(tmp_path: Path) -> None:
    import torch
    from gguf import GGUFReader
    from safetensors.torch import load_file

    folder = save_tiny_model(tmp_path / "model", "gemma3", hidden=64)
    conversion = convert_model(folder, tmp_path / "model.gguf", "F32", name="somebody")
    reader = GGUFReader(tmp_path / "model.gguf")
    keys = {key: reader.fields[key].contents() for key in reader.fields if not key.startswith("tokenizer.")}
    assert keys["general.architecture"] == "gemma3" and keys["general.name"] == "somebody"
    assert keys["gemma3.block_count"] == 7 and keys["gemma3.attention.key_length"] == 32
    assert keys["gemma3.attention.sliding_window"] == 16
    assert keys["gemma3.rope.freq_base"] == 1e6 and keys["gemma3.rope.freq_base_swa"] == 1e4
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert conversion.parameters == sum(tensor.n_elements for tensor in reader.tensors)
    assert len(tensors) == 93 and "output.weight" not in tensors
    norm = load_file(folder / "model.safetensors")["model.layers.3.self_attn.q_norm.weight"]
    np.testing.assert_array_equal(tensors["blk.3.attn_q_norm.weight"].data, norm.to(torch.float32).numpy() + 1)


def test_equal_inputs_give_equal_bytes_however_the_weights_are_sharded(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = save_tiny_model(tmp_path / "model", "qwen3")
    convert_model(folder, tmp_path / "one.gguf")
    convert_model(folder, tmp_path / "two.gguf")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    convert_model(folder, tmp_path / "sharded.gguf")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "sharded.gguf").read_bytes()


def test_an_embedding_with_more_rows_than_tokens_is_padded(tmp_path: Path) -> None:
    from pocketloop.models.llama_cpp import LlamaCppGenerator

    folder = save_tiny_model(tmp_path / "model", "qwen2", vocab_size=512)
    convert_model(folder, tmp_path / "model.gguf")
    with LlamaCppGenerator(tmp_path / "model.gguf", folder, threads=1) as generator:
        assert generator.vocabulary == 512 > len(generator.tokenizer)
        assert generator.tokenize(TEXT) == generator.tokenizer(TEXT)["input_ids"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another sliding pattern": ({"architecture": "gemma3", "layer_types": ["full_attention"] * 7}, "sliding pattern"),
    "another attention scale": ({"architecture": "gemma3", "query_pre_attn_scalar": 64}, "query_pre_attn_scalar 64"),
    "another activation": ({"architecture": "llama", "hidden_act": "gelu"}, "activation 'gelu'"),
    "biases": ({"architecture": "llama", "attention_bias": True}, "attention_bias"),
    "yarn": (
        {
            "architecture": "qwen3",
            "rope": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 128},
        },
        "rope type 'yarn'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_cpp_would_compute_differently_is_refused_by_name(case: str, tmp_path: Path) -> None:
    settings, message = REFUSED[case]
    folder = save_tiny_model(tmp_path / "model", **settings)
    with pytest.raises(ExportError, match=message):
        convert_model(folder, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*.gguf*"))


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import GPT2Config

    GPT2Config().save_pretrained(tmp_path / "model")
    with pytest.raises(ExportError, match="'gpt2'"):
        convert_model(tmp_path / "model", tmp_path / "model.gguf")


def test_a_folder_without_all_its_weights_is_a_model_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(ModelError, match=r"config\.json"):
        convert_model(tmp_path, tmp_path / "model.gguf")
    folder = save_tiny_model(tmp_path / "model", "qwen2")
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights)
    with pytest.raises(ModelError, match=r"blk\.1\.ffn_up"):
        convert_model(folder, tmp_path / "model.gguf")
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="damaged"):
        convert_model(folder, tmp_path / "model.gguf")
    weights.unlink()
    with pytest.raises(ModelError, match="safetensors"):
        convert_model(folder, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*.gguf*"))


def test_weights_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny_model(tmp_path / "model", "qwen2")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ExportError, match=r"blk\.0\.ffn_up\.weight"):
        convert_model(folder, tmp_path / "model.gguf")
    convert_model(folder, tmp_path / "model.gguf", "F32")
