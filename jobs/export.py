"""Writes the folder that is served: Hugging Face format, safetensors, in the serving precision."""

from __future__ import annotations

import torch
from transformers import GenerationConfig

from jobs.data.tokenizer import load_tokenizer
from jobs.training import model as models
from orchestrator.job import JobContext, Metrics

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def export(ctx: JobContext, *, format: str = "bf16", max_tokens: int = 64) -> Metrics:  # noqa: A002 - the word of the glossary
    """Export the input `model` with its tokenizer, generation config and chat template.

    Args:
        ctx: The context.
        format: `bf16` or `fp32`.
        max_tokens: Most tokens of an answer, unless the caller says otherwise.
    """
    if format not in DTYPES:
        raise ValueError(f"format={format!r} is none of {', '.join(sorted(DTYPES))}")
    folder = ctx.inputs["model"]
    tokenizer = load_tokenizer(folder)
    model = models.load(folder).to(DTYPES[format])
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    if ctx.rank == 0:
        models.save(model, ctx.output)
        tokenizer.save_pretrained(ctx.output)
    ctx.log(f"{models.parameters(model):,} parameters in {format}")
    size = sum(path.stat().st_size for path in ctx.output.glob("*.safetensors"))
    return {"export/bytes": float(size), "export/parameters": float(models.parameters(model))}
