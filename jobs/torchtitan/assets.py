"""Writes what torchtitan calls Hugging Face assets, for its debug model and a tokenizer of ours.

`python -m jobs.torchtitan.assets TOKENIZER OUTPUT`. For a model of the hub they are what one has
downloaded: its tokenizer and its `config.json`. The weights that torchtitan writes in Hugging
Face's layout (`--checkpoint.last_save_in_hf`) and these files are together a folder that opens
anywhere.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from jobs.data.tokenizer import load_tokenizer


def main(source: Path, output: Path) -> None:
    """Copy the tokenizer from the folder `source` and write the config beside it."""
    from torchtitan.models.llama3 import model_registry

    shutil.copytree(source, output, dirs_exist_ok=True)
    tokenizer = load_tokenizer(source)
    config = llama_config(model_registry("debugmodel").model, len(tokenizer))
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    config.save_pretrained(output)


def llama_config(model: Any, tokens: int) -> Any:  # noqa: ANN401 - configs of foreign packages
    """Return the config of transformers that says what one of torchtitan's Llama models says.

    Args:
        model: Its `Llama3Model.Config`.
        tokens: How many tokens its tokenizer has.

    Raises:
        ValueError: The model has no embeddings for as many tokens.
    """
    from transformers import LlamaConfig

    if tokens > model.vocab_size:
        raise ValueError(f"a tokenizer of {tokens} tokens is too large for {model.vocab_size}")
    layer = model.layers[0]
    attention, rope = layer.attention, layer.attention.rope
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=model.vocab_size,
        hidden_size=model.dim,
        intermediate_size=layer.feed_forward.w1.out_features,
        num_hidden_layers=len(model.layers),
        num_attention_heads=attention.n_heads,
        num_key_value_heads=attention.n_kv_heads or attention.n_heads,
        max_position_embeddings=rope.max_seq_len,
        rms_norm_eps=model.norm.eps,
        tie_word_embeddings=model.enable_weight_tying,
        rope_parameters=_rope(rope),
        bos_token_id=None,
    )


def _rope(rope: Any) -> dict[str, str | float]:  # noqa: ANN401 - torchtitan's own class
    if rope.scaling == "none":
        return {"rope_type": "default", "rope_theta": rope.theta}
    return {
        "rope_type": "llama3",
        "rope_theta": rope.theta,
        "factor": rope.scaling_factor,
        "low_freq_factor": rope.low_freq_factor,
        "high_freq_factor": rope.high_freq_factor,
        "original_max_position_embeddings": rope.original_max_position_embeddings,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
