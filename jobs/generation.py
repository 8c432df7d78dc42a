"""Greedy answers to many prompts at once, with nothing but a model and its tokenizer.

Greedy means greedy: whatever a model's `generation_config.json` says of penalties, samples and
lengths is left aside, but for the tokens that end an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from jobs.engines.model_tokenizer import ends_of


def greedy(
    model: Any,  # noqa: ANN401 - a transformers model
    tokenizer: Any,  # noqa: ANN401 - a transformers tokenizer
    prompts: Sequence[Sequence[int]],
    *,
    device: torch.device | str,
    max_tokens: int,
) -> list[str]:
    """Return the likeliest answer to each prompt; shorter prompts are padded on the left."""
    width = max(map(len, prompts))
    with _neutral(model, tokenizer) as config, torch.inference_mode():
        pad = config.pad_token_id
        ids = torch.tensor([[*[pad] * (width - len(prompt)), *prompt] for prompt in prompts])
        mask = torch.tensor(
            [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        )
        out = model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=max_tokens
        )
    texts: list[str] = tokenizer.batch_decode(out[:, width:].tolist(), skip_special_tokens=True)
    return [text.strip() for text in texts]


@contextmanager
def _neutral(model: Any, tokenizer: Any) -> Iterator[GenerationConfig]:  # noqa: ANN401 - as above
    """Have `generate` take the likeliest token, up to any of the model's ends.

    The model's own config steps aside: `generate` takes from it whatever a caller leaves open.
    """
    own = model.generation_config
    ends = sorted(ends_of(tokenizer, own, model.config.get_text_config().vocab_size))
    pad = next((token for token in (tokenizer.pad_token_id, *ends) if token is not None), 0)
    neutral = GenerationConfig(do_sample=False, eos_token_id=ends or None, pad_token_id=pad)
    model.generation_config = neutral
    try:
        yield neutral
    finally:
        model.generation_config = own
