"""Writes the folder that is served: Hugging Face's layout, safetensors, in the serving format."""

from __future__ import annotations

import json
import os
from math import prod
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig
from transformers.utils import GENERATION_CONFIG_NAME

from jobs.data.tokenizer import load_tokenizer
from jobs.formats.choice import Choice, choose
from jobs.formats.conversion import Conversion
from jobs.formats.folder import Folder
from jobs.formats.records import KEY, record
from jobs.formats.schemes import FORMATS, PLAIN, SCHEMES
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
    choice = choose(config, source.specs, SCHEMES.get(format))
    if format not in PLAIN and not choice.quantized:
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
    _accompany(source.path, config, max_tokens, ctx.output)
    counts = {name: prod(spec.shape) for name, spec in source.specs.items()}
    coded = 0 if format in PLAIN else sum(counts[name] for name in choice.quantized)
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
    said = record(form, choice.ignored)
    if said is not None:
        setattr(config, KEY, said)
    config.save_pretrained(folder)


def _accompany(source: Path, config: Any, max_tokens: int, folder: Path) -> None:  # noqa: ANN401 - as above
    """Write what an engine needs beside the weights.

    What the model says of its answers stays: all its ends of text, how its tokens are drawn.
    """
    tokenizer = load_tokenizer(source)
    file = source / GENERATION_CONFIG_NAME
    own: dict[str, Any] = json.loads(file.read_bytes()) if file.exists() else {}
    ends = _several(own.get("eos_token_id")) or _several(getattr(config, "eos_token_id", None))
    ends += [end for end in _several(tokenizer.eos_token_id) if end not in ends]
    written = {
        "do_sample": False,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **{name: value for name, value in own.items() if value is not None},
        "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
        "max_new_tokens": max_tokens,
    }
    text = json.dumps({name: value for name, value in written.items() if value is not None})
    (folder / GENERATION_CONFIG_NAME).write_text(f"{text}\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)


def _several(ends: int | list[int] | None) -> list[int]:
    if ends is None:
        return []
    return [ends] if isinstance(ends, int) else list(ends)
