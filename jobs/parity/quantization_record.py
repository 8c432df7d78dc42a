"""Whether a folder says of its quantized weights what is true of them.

Our own reader takes a weight for quantized where it has a scale. Others believe what the folder
says: which layers are not quantized, in which type inputs are, which kinds of layers are meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from jobs.formats import modelslim
from jobs.formats.choice import QuantizationChoice, choose
from jobs.formats.folder import Folder
from jobs.formats.records import KEY, record
from jobs.formats.schemes import DIALECTS, SGLANG

_IGNORED = ("ignore", "modules_to_not_convert")
_FLOAT = "float-quantized"  # llm-compressor's, which no export of ours is in
# What writers say of themselves, and of how they came to their scales.
_ASIDE = frozenset(
    {"version", "global_compression_ratio", "observer", "observer_kwargs", "format", *_IGNORED}
)
_DEFAULTS = {"fmt": "e4m3"}  # what readers take where nothing is said


def choice_in(folder: Folder) -> QuantizationChoice:
    """Return what is quantized in a folder, and what its readers have to be told is not."""
    config = AutoConfig.from_pretrained(folder.path, local_files_only=True)
    stored = {name for name in folder.specs if folder.is_quantized(name)}
    return choose(config, folder.specs, stored=stored)


def wrong_statements(folder: Folder, choice: QuantizationChoice) -> list[str]:
    """Return what a folder says wrongly of its quantized weights, or fails to say; by names.

    Those are fields of its record, modules that it does not name and that readers would take for
    quantized, and modules that it names though they are. A folder of plain weights says nothing.
    """
    scheme = folder.scheme
    if scheme is None:
        return []
    section: Any = folder.config.get(KEY)
    if (folder.path / modelslim.FILE).exists():
        wrong = [KEY] if section is not None else []
        return [*wrong, *_of_description(folder.path, scheme.form, choice)]
    dialect = SGLANG if section["quant_method"] == "mxfp8" else DIALECTS[0]
    wanted = record(scheme.form, choice.ignored, dialect) or {}
    if section.get("format") == _FLOAT:
        return [*_of_groups(section), *_of_modules(section, choice)]
    if "weight_block_size" in wanted:
        wanted["weight_block_size"] = [*scheme.block]
    return [*_of_fields(wanted, section), *_of_modules(section, choice)]


def _of_description(folder: Path, form: str, choice: QuantizationChoice) -> Iterator[str]:
    wanted = modelslim.description(form, choice.places, choice.quantized)
    actual = modelslim.said_in(folder)
    yield from (n for n in wanted if n != modelslim.VERSION and actual.get(n) != wanted[n])


def _of_fields(
    wanted: Mapping[str, object], actual: Mapping[str, Any], place: str = ""
) -> Iterator[str]:
    """Yield the fields that are others than is wanted; further ones may say no."""
    for name in sorted((wanted.keys() | actual.keys()) - _ASIDE):
        true, stated = wanted.get(name), actual.get(name, _DEFAULTS.get(name))
        if isinstance(true, Mapping) and isinstance(stated, Mapping):
            yield from _of_fields(true, stated, f"{place}{name}.")
        elif stated != true and (true or stated):
            yield f"{place}{name}"


def _of_groups(section: Mapping[str, Any]) -> Iterator[str]:
    """Yield what groups of blocks of floats say wrongly, as llm-compressor writes them."""
    for name, group in section["config_groups"].items():
        inputs = group.get("input_activations") or {}
        wanted = {"num_bits": 8, "type": "float", "dynamic": True, "symmetric": True}
        stated = {field: inputs.get(field) for field in wanted}
        yield from _of_fields(wanted, stated, f"{name}.input_activations.")
        if group.get("targets") != ["Linear"]:
            yield f"{name}.targets"


def _of_modules(section: Mapping[str, Any], choice: QuantizationChoice) -> Iterator[str]:
    """Yield the modules that are not named though they should be, or the other way round.

    Embeddings and convolutions need no name: their readers look for linear layers.
    """
    named: Sequence[str] = next((section[name] for name in _IGNORED if section.get(name)), ())
    # What is named stands for its parts too.
    inner = section["quant_method"] != "compressed-tensors"
    wanted = {*choice.ignored} - choice.not_linear
    experts = {name for name in wanted if name.rpartition(".")[2] == "experts"}
    if not inner:  # its readers ask for each layer of each expert
        wanted |= {f"{name}.0.down_proj" for name in experts}
    yield from sorted(name for name in wanted if not _names(named, name, inner=inner))
    tensors = {*choice.quantized, *choice.quantized_in_memory}
    modules = {name.removesuffix(".weight") for name in tensors}
    yield from sorted(module for module in modules if _names(named, module, inner=inner))


def _names(named: Sequence[str], module: str, *, inner: bool) -> bool:
    for entry in named:
        if entry.startswith("re:"):
            if re.match(entry[3:], module):
                return True
        elif module == entry or (inner and module.startswith(f"{entry}.")):
            return True
    return False
