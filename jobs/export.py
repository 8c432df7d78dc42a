"""Writes the folder that is served: Hugging Face's layout, safetensors, in the serving format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig

from jobs.calibration.recipe import calibrated, recipe_of
from jobs.data.tokenizer import load_tokenizer
from jobs.formats import modelslim
from jobs.formats.choice import choose
from jobs.formats.conversion import Conversion
from jobs.formats.exported_generation import write_generation_config
from jobs.formats.folder import Folder
from jobs.formats.records import KEY, record
from jobs.formats.schemes import MODELSLIM, PLAIN, scheme_for
from jobs.formats.tied_head import has_own_head, untie
from jobs.training.process_group import ProcessGroup
from orchestrator.job import JobContext, Metrics


def export(
    ctx: JobContext,
    *,
    format: Literal["auto", "bf16", "fp32", "fp8", "fp8_ue8m0", "mxfp8", "int8"] = "bf16",  # noqa: A002 - the word of the glossary
    dialect: Literal["auto", "vllm", "sglang", "ascend-modelslim"] = "vllm",
    recipe: Mapping[str, Any] | None = None,
) -> Metrics:
    """Export the input `model` with its tokenizer, generation config and chat template.

    Each worker writes a share of the files, with as many threads as it has cores: into the folder
    of the first where it sees that, else into its own, from which they are sent to the first.

    Args:
        ctx: The context.
        format: Format of the weights; a plan says the one that the pools can serve in place of
            `auto`.
        dialect: Whose reader the folder is for; a plan says in place of `auto` what reads it on
            the pools.
        recipe: How llm-compressor calibrates the weights, with rows of the input `data`, as
            `jobs.calibration.recipe.Recipe`; without it they are rounded to the nearest.
    """
    scheme = scheme_for(format, dialect)
    asked = recipe_of(recipe or {}, format, ctx)
    group = ProcessGroup(ctx)
    folders = [Path(text) for text in group.gather(str(ctx.output))]
    near = [rank for rank, folder in enumerate(folders) if folder.is_dir()]  # on this file system
    target = folders[0] if 0 in near else ctx.output
    source = Folder(ctx.inputs["model"], (near.index(ctx.rank), len(near)))
    config = AutoConfig.from_pretrained(source.path, local_files_only=True)
    choice = choose(config, source.specs, scheme)
    if format not in PLAIN and not choice.quantized:
        raise ValueError(
            f"a {config.model_type} has no layer that readers take in {format}; export it in bf16"
        )
    with calibrated(ctx, asked, source, choice) if asked else nullcontext() as compressed:
        conversion = Conversion(
            source=source,
            form=format,
            choice=choice,
            calibrated=compressed,
            dialect=dialect,
            device="cpu" if ctx.hardware.emulated else ctx.device,
            threads=torch.get_num_threads(),
            share=(ctx.rank, ctx.world_size),
        )
        with ctx.busy("converting"):
            written = conversion.run(target)
            hashes = _gathered(ctx, group, target, written.hashes)
    if ctx.rank != 0:
        return {}
    for name, sha256 in hashes.items():
        ctx.hashed(name, sha256)
    with ctx.busy("comparing head and embeddings"):
        if has_own_head(source, choice):
            untie(config)
    _describe(config, format, record(format, choice.ignored, dialect), ctx.output)
    if dialect == MODELSLIM:
        modelslim.write(ctx.output, format, source.specs, choice.quantized)
    _accompany(source.path, ctx.output)
    counts = {name: prod(spec.shape) for name, spec in source.specs.items()}
    quantized = 0 if format in PLAIN else sum(counts[name] for name in choice.quantized)
    return _record(ctx, format, sum(counts.values()), quantized, written.size)


def _record(ctx: JobContext, form: str, total: int, quantized: int, size: int) -> Metrics:
    """Say how many parameters were written, in how many bytes."""
    ctx.log(f"{total:,} parameters in {form}, {quantized:,} of them quantized: {size:,} bytes")
    return {"export/bytes": float(size), "export/parameters": float(total)}


def _gathered(
    ctx: JobContext, group: ProcessGroup, folder: Path, hashes: Mapping[str, str]
) -> Mapping[str, str]:
    """Bring all files of weights into the first worker's `output`; return their SHA-256 there.

    Args:
        ctx: The context.
        group: The workers.
        folder: Where this one has written.
        hashes: The SHA-256 of each file that it has written.
    """
    sent = sorted(hashes) if folder == ctx.output and ctx.rank else []
    gathered = [json.loads(text) for text in group.gather(json.dumps([dict(hashes), sent]))]
    for rank, (_, names) in enumerate(gathered):
        for name in names:
            group.bring(rank, folder / name, ctx.output / name)
    return {name: sha256 for known, _ in gathered for name, sha256 in known.items()}


def _describe(config: Any, form: str, quantization: object, folder: Path) -> None:  # noqa: ANN401 - a transformers config
    """Write the config, which says what the format is."""
    if hasattr(config, KEY):
        delattr(config, KEY)
    config.dtype = PLAIN.get(form, PLAIN["bf16"])
    if quantization is not None:
        setattr(config, KEY, quantization)
    config.save_pretrained(folder)


def _accompany(source: Path, folder: Path) -> None:
    """Write what an engine needs beside the weights.

    What the model says of its answers stays as it is: how long they are at most is for the
    endpoint to say. A model that says nothing gets its ends of text from config and tokenizer.
    """
    write_generation_config(source, folder)
    load_tokenizer(source).save_pretrained(folder)
