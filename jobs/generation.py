"""Greedy answers to many questions at once, with nothing but a model and its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from jobs.data.tokenizer import encode_prompts


def answer(
    model: Any,  # noqa: ANN401 - a transformers model
    tokenizer: Any,  # noqa: ANN401 - a transformers tokenizer
    questions: Sequence[str],
    *,
    device: torch.device,
    max_tokens: int,
) -> list[str]:
    """Return the likeliest answer to each question, by the tokenizer's chat template."""
    prompts = encode_prompts(tokenizer, questions)
    width = max(len(prompt) for prompt in prompts)
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            do_sample=False,
            max_new_tokens=max_tokens,
            pad_token_id=pad,
            eos_token_id=tokenizer.eos_token_id,
        )
    texts: list[str] = tokenizer.batch_decode(out[:, width:].tolist(), skip_special_tokens=True)
    return [text.strip() for text in texts]
