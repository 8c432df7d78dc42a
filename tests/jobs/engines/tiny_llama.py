"""A random Llama of a few thousand weights over bytes, saved as a Hugging Face folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from tests.jobs.local_context import EMULATED

EOS = 256
SHAPE: dict[str, Any] = {
    "vocab_size": 257,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": EOS,
}
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if messages[0].content == 'refuse' %}{{ raise_exception('no') }}{% endif %}assistant:"
)
HARDWARE = replace(
    EMULATED, pool="ascend", accelerator="ascend-910c", vendor="huawei", memory_gb=None
)


def save_tiny_llama(folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """Write the model, its byte-level tokenizer and a chat template into `folder`."""
    logging.disable_progress_bar()
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**{**SHAPE, **config})).save_pretrained(folder)
    return save_byte_tokenizer(folder)


def continued(model: Any, prompt: list[int], **more: Any) -> list[int]:
    """Return the tokens, 40 at most, by which transformers continues a prompt greedily."""
    tokens = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=40,
        do_sample=False,
        pad_token_id=EOS,
        **more,
    )
    return list(tokens[0, len(prompt) :].tolist())


def save_byte_tokenizer(folder: Path) -> Path:
    """Write a byte-level tokenizer and a chat template into `folder`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {byte: number for number, byte in enumerate([*alphabet, "<eos>"])}
    bytes_only = Tokenizer(models.BPE(vocab=words, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token="<eos>")  # noqa: S106 - a word, not a password
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder
