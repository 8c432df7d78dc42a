"""Writes the folder that is served: Hugging Face's layout, safetensors, in the serving format."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig, GenerationConfig

from jobs.data.tokenizer import load_tokenizer
from jobs.formats.choice import Choice, choose
from jobs.formats.conversion import Conversion
from jobs.formats.folder import Folder
from jobs.formats.records import KEY, record
from jobs.formats.schemes import FORMATS, PLAIN
from orchestrator.job import JobContext, Metrics


def export(
    ctx: JobContext,
    *,
    format: Literal["auto", "bf16", "fp32", "fp8", "fp8_ue8m0", "mxfp8", "int8"] = "bf16",  # noqa: A002 - the word of the glossary
    max_tokens: int = 64,
) -> Metrics:
    """Export the input `model` with its tokenizer, generation config and chat template.

    Args:
        ctx: The context.
        format: Format of the weights; a plan says the one that the pools can serve in place of
            `auto`.
        max_tokens: Most tokens of an answer, unless the caller says otherwise.
    """
    if format not in FORMATS:
        raise ValueError(f"format={format!r} is none of {', '.join(FORMATS)}")
    if ctx.rank != 0:
        return {}
    source = Folder(ctx.inputs["model"])
    config = AutoConfig.from_pretrained(source.path, local_files_only=True)
    choice = choose(config, source.specs)
    if format not in PLAIN and not choice.coded:
        raise ValueError(
            f"a {config.model_type} has no linear layer to quantise; export it in bf16"
        )
    written = Conversion(
        source=source,
        form=format,
        choice=choice,
        device="cpu" if ctx.hardware.emulated else ctx.device,
        threads=os.cpu_count() or 1,
    ).run(ctx.output)
    for name, sha256 in written.hashes.items():
        ctx.hashed(name, sha256)
    _describe(config, format, choice, ctx.output)
    _accompany(source.path, max_tokens, ctx.output)
    counts = {name: prod(spec.shape) for name, spec in source.specs.items()}
    coded = 0 if format in PLAIN else sum(counts[name] for name in choice.coded)
    total = sum(counts.values())
    ctx.log(
        f"{total:,} parameters in {format}, {coded:,} of them quantised: {written.size:,} bytes"
    )
    return {"export/bytes": float(written.size), "export/parameters": float(total)}


def _describe(config: Any, form: str, choice: Choice, folder: Path) -> None:  # noqa: ANN401 - a transformers config
    """Write the config, which says what the format is."""
    if hasattr(config, KEY):
        delattr(config, KEY)
    config.dtype = PLAIN.get(form, PLAIN["bf16"])
    said = record(form, choice.whole)
    if said is not None:
        setattr(config, KEY, said)
    config.save_pretrained(folder)


def _accompany(source: Path, max_tokens: int, folder: Path) -> None:
    """Write what an engine needs beside the weights."""
    tokenizer = load_tokenizer(source)
    GenerationConfig(
        do_sample=False,
        max_new_tokens=max_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
