"""A recipe of llm-compressor: what it is asked, and how it is run.

llm-compressor pins other versions of transformers and compressed-tensors than this package does:
it runs in a process of its own, by the Python of an environment that has it. It is given a folder
of plain weights and rows of tokens, and writes a folder of compressed-tensors.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from jobs import program
from jobs.data.dataset import read_facts
from jobs.data.tokens.training_data import read_samples
from jobs.formats.choice import QuantizationChoice
from jobs.formats.folder import Folder
from jobs.formats.safety import is_divided
from orchestrator.job import JobContext

# The formats that a recipe makes, as compressed-tensors calls its presets.
SCHEMES: Mapping[str, str] = MappingProxyType({"int8": "W8A8", "fp8": "FP8_BLOCK"})
_SCRIPT = Path(__file__).with_name("compress.py")
_REPORT = "llmcompressor.txt"
_KEPT = 2000  # lines of what it says


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How weights are calibrated.

    Attributes:
        python: The Python of an environment that has llm-compressor, on the node.
        scheme: What compressed-tensors calls the format.
        rows: How many rows of the data set's training split it sees.
        modifiers: llm-compressor's modifiers in their order, each with its fields. Targets, scheme
            and what stays as it is are for the format to say.
    """

    python: str
    scheme: str
    rows: int = 256
    modifiers: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: {"GPTQModifier": {}}
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: One is of another type, or there is none.
        """
        if not isinstance(self.python, str) or not self.python:
            raise ValueError(
                f"recipe.python={self.python!r} is no Python; name that of an environment with "
                f"llm-compressor"
            )
        if not isinstance(self.rows, int) or self.rows < 1:
            raise ValueError(f"recipe.rows={self.rows!r} is no number of rows; give at least 1")
        if not self.modifiers or not all(isinstance(m, Mapping) for m in self.modifiers.values()):
            raise ValueError(
                f"recipe.modifiers={dict(self.modifiers)!r} does not name modifiers with their "
                f"fields; give for example {{GPTQModifier: {{}}}}"
            )


def recipe_of(quantization: Mapping[str, Any], form: str, ctx: JobContext) -> Recipe | None:
    """Return what a parameter says of a recipe for a format; `None` where that is nothing.

    Raises:
        ValueError: It is no recipe, makes no such format, or lacks a data set or a single worker.
    """
    if not quantization:
        return None
    known = [parameter.name for parameter in fields(Recipe) if parameter.name != "scheme"]
    if unknown := sorted(set(quantization) - set(known)):
        raise ValueError(f"recipe.{unknown[0]} is none of {', '.join(known)}")
    if form not in SCHEMES:
        raise ValueError(
            f"a recipe makes {' or '.join(SCHEMES)}, not format={form!r}; choose one of them, or "
            f"leave the recipe out"
        )
    if "data" not in ctx.inputs:
        raise ValueError("a recipe wants rows to calibrate with; give the stage an input `data`")
    if ctx.world_size > 1:
        raise ValueError(
            f"a recipe runs in one worker, not in {ctx.world_size}; set needs.workers=1"
        )
    return Recipe(**{"python": "", **quantization}, scheme=SCHEMES[form])


@contextmanager
def calibrated(
    ctx: JobContext, recipe: Recipe, source: Folder, choice: QuantizationChoice
) -> Iterator[Folder]:
    """Have llm-compressor quantize a model, and yield what it wrote, which is deleted afterwards.

    Raises:
        ValueError: The source is quantized already or stands in parts, or llm-compressor can't be
            run, or fails.
    """
    if source.scheme is not None:
        raise ValueError(
            f"{str(source.path)!r} is in {source.scheme.form} already; a recipe wants bf16 or fp32"
        )
    if is_divided(source.path):
        raise ValueError(
            f"{str(source.path)!r} has its tensors in parts, which llm-compressor can't read; "
            f"export it in bf16 first"
        )
    target = ctx.output / ".calibrated"
    rows = _rows(ctx.inputs["data"], recipe.rows, ctx.seed)
    order = {
        "model": str(source.path),
        "output": str(target),
        "scheme": recipe.scheme,
        "ignore": list(choice.ignored),
        "modifiers": {name: dict(said) for name, said in recipe.modifiers.items()},
        "rows": rows,
        "threads": torch.get_num_threads(),
        "worker": os.getpid(),
    }
    try:
        with ctx.busy("calibrating"):
            code, said = _run(recipe, json.dumps(order))
        ctx.report(_REPORT, "".join(said))
        if code:
            last = next((line for line in reversed(said) if line.strip()), "no word").strip()
            raise ValueError(f"llm-compressor ended with {code}: {last} (see {_REPORT})")
        compressed = Folder(target)
        _check_names(compressed, source, choice)
        ctx.log(
            f"calibrated by {', '.join(recipe.modifiers)} with {len(rows)} rows, "
            f"{sum(map(len, rows)):,} tokens"
        )
        yield compressed
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _check_names(compressed: Folder, source: Folder, choice: QuantizationChoice) -> None:
    """Check that what is to be quantized is calibrated, by the names of the source.

    Layers that the model does not know, of DeepSeek for further tokens, are not calibrated: they
    are rounded to the nearest.
    """
    if extra := sorted(set(compressed.specs) - set(source.specs)):
        raise ValueError(
            f"llm-compressor wrote {extra[0]}, which {str(source.path)!r} does not have: it names "
            f"the weights of this type otherwise; leave the recipe out"
        )
    left = sorted(
        n for n in choice.quantized & set(compressed.specs) if not compressed.is_quantized(n)
    )
    if left:
        raise ValueError(
            f"llm-compressor did not quantize {left[0]}"
            f"{f' and {len(left) - 1} more' if left[1:] else ''}; leave the recipe out"
        )


def _rows(data: Path, count: int, seed: int) -> list[list[int]]:
    """Return rows of the training split, drawn by `seed`, without what fills them up."""
    tokens = read_samples(data, "train").tokens
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))
    pad = read_facts(data).pad
    drawn = (_unpadded(tokens[int(index)].tolist(), pad) for index in order[:count])
    rows = [row for row in drawn if row]
    if not rows:
        raise ValueError(f"{str(data)!r} has no rows to calibrate with")
    return rows


def _unpadded(row: list[int], pad: int) -> list[int]:
    while row and row[-1] == pad:
        row.pop()
    return row


def _run(recipe: Recipe, order: str) -> tuple[int, list[str]]:
    """Return how llm-compressor ended that was given a line, and the last lines that it said."""
    try:
        code, said = program.run([recipe.python, "-I", str(_SCRIPT)], f"{order}\n")
    except OSError as error:
        raise ValueError(
            f"recipe.python={recipe.python!r} can't be run: {error.strerror}; name the Python of "
            f"an environment with llm-compressor"
        ) from error
    return code, said.splitlines(keepends=True)[-_KEPT:]
