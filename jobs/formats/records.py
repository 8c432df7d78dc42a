"""How a model folder says which format it has: `quantization_config` in its `config.json`.

The conventions are those that transformers and vLLM read:

    fp8, fp8_ue8m0   as DeepSeek-V3.1 has it (its config.json): `NAME_scale_inv` in float32, one
                     for 128 x 128 weights; `scale_fmt: ue8m0` says that all are powers of two
    int8             compressed-tensors, `int-quantized`: `NAME_scale` in float32, one a row
    mxfp8            compressed-tensors, `mxfp8-quantized`: `NAME_scale` as bytes in E8M0 (Open
                     Compute Project, Microscaling Formats 1.0), one for 32 weights of a row

Folders of llm-compressor are read too: `int-quantized`, and `float-quantized` in blocks.

SGLang reads the last one as blocks of 1 x 32, `NAME_scale_inv`, of the method `mxfp8`. What reads
Ascend's folders has a file of its own (`modelslim`).

A folder is told by this record alone, never by its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch

from jobs.formats.schemes import DIALECTS, MODELSLIM, SCHEMES, SGLANG, Scheme, scheme_for

KEY = "quantization_config"
_COMPRESSED = {"int-quantized": "int8", "mxfp8-quantized": "mxfp8"}
_FLOAT = "float-quantized"
_LAYOUTS: Mapping[str, Mapping[str, object]] = {
    "int8": {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True},
    "mxfp8": {
        "num_bits": 8,
        "type": "float",
        "strategy": "group",
        "group_size": 32,
        "symmetric": True,
    },
}
# llm-compressor's FP8_BLOCK: the blocks of `fp8`, with compressed-tensors' name of scales.
_FLOAT_BLOCKS: Mapping[str, object] = MappingProxyType(
    {"num_bits": 8, "type": "float", "strategy": "block", "symmetric": True}
)
_UNKNOWN = (
    f"{KEY} of quant_method {{!r}} is of no kind that is read here; "
    f"export the model in one of {', '.join(('bf16', *SCHEMES))}"
)
_BLOCKS = 2  # rows and columns
# What plain weights are called; no export of ours is in the last one.
_STORED: Mapping[str, str] = MappingProxyType(
    {"bfloat16": "bf16", "float32": "fp32", "float16": "fp16"}
)
_SGLANG_MXFP8 = "mxfp8"


def record(
    form: str, ignored: Sequence[str], dialect: str = DIALECTS[0]
) -> dict[str, object] | None:
    """Return what the config of a folder in `form` says; `None` where that is nothing.

    Args:
        form: Name of the format.
        ignored: Names of the modules whose weights are not quantized; see `QuantizationChoice`.
        dialect: For whose readers.
    """
    if dialect == MODELSLIM:
        return None
    if form in ("fp8", "fp8_ue8m0") or (form, dialect) == ("mxfp8", SGLANG):
        return _blocks(form, ignored)
    return _groups(form, ignored) if form in _LAYOUTS else None


def scheme_of(config: Mapping[str, Any]) -> Scheme | None:
    """Return the scheme that a config says its weights have; `None` for plain weights.

    Raises:
        ValueError: It is none that is read here.
    """
    section = config.get(KEY)
    if section is None:
        return None
    method = section.get("quant_method") if isinstance(section, Mapping) else section
    if method == _SGLANG_MXFP8:
        return scheme_for("mxfp8", SGLANG)
    if method == "fp8":
        return _of_blocks(section)
    if method == "compressed-tensors" and section.get("format") == _FLOAT:
        return _of_float(section)
    form = _COMPRESSED.get(str(section.get("format"))) if method == "compressed-tensors" else None
    if form is None or any(not _alike(group, _LAYOUTS[form]) for group in _groups_of(section)):
        raise ValueError(_UNKNOWN.format(method))
    return SCHEMES[form]


def form_of(config: Mapping[str, Any], described: Scheme | None = None) -> str:
    """Return the name of the format that a config says its weights have, or a file beside it.

    Raises:
        ValueError: As `scheme_of`.
    """
    scheme = scheme_of(config) or described
    if scheme is not None:
        return scheme.form
    stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return _STORED.get(stored, stored)


def _blocks(form: str, ignored: Sequence[str]) -> dict[str, object]:
    config: dict[str, object] = {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": _SGLANG_MXFP8 if form == "mxfp8" else "fp8",
        "weight_block_size": list(SCHEMES[form].block),
    }
    if SCHEMES[form].powers:
        config["scale_fmt"] = "ue8m0"
    if ignored:
        config["modules_to_not_convert"] = list(ignored)
    return config


def _of_blocks(section: Mapping[str, Any]) -> Scheme:
    block = _block("weight_block_size", section.get("weight_block_size"))
    if section.get("fmt", "e4m3") != "e4m3":
        raise ValueError(f"{KEY}: fmt is {section['fmt']!r}; only 'e4m3' is read here")
    form = "fp8_ue8m0" if section.get("scale_fmt") == "ue8m0" else "fp8"
    return replace(SCHEMES[form], block=block)


def _of_float(section: Mapping[str, Any]) -> Scheme:
    groups = _groups_of(section)
    if any(not _alike(group, _FLOAT_BLOCKS) for group in groups):
        raise ValueError(_UNKNOWN.format(section["quant_method"]))
    shapes = {
        str(shape): shape
        for shape in (group["weights"].get("block_structure") for group in groups)
    }
    block = _block("block_structure", *shapes.values())
    return replace(SCHEMES["fp8"], block=block, suffix="_scale")


def _block(field: str, *shapes: object) -> tuple[int, int]:
    """Return rows and columns of the blocks, which are of one shape."""
    shape = shapes[0] if len(shapes) == 1 else shapes
    sizes = shape if isinstance(shape, Sequence) and len(shape) == _BLOCKS else ()
    if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(f"{KEY}: {field} is {shape!r}, not rows and columns of a block")
    return sizes[0], sizes[1]


def _groups(form: str, ignored: Sequence[str]) -> dict[str, object]:
    weights: dict[str, object] = {**_LAYOUTS[form], "dynamic": False}
    activations: dict[str, object] = {**_LAYOUTS[form], "dynamic": True}
    if form == "int8":
        activations["strategy"] = "token"
    if SCHEMES[form].scales == torch.uint8:
        weights["scale_dtype"] = activations["scale_dtype"] = "torch.uint8"
    group = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": activations,
        "output_activations": None,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": next(name for name, known in _COMPRESSED.items() if known == form),
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": [*ignored, *_experts(ignored)],
        "kv_cache_scheme": None,
    }


def _experts(ignored: Sequence[str]) -> Iterator[str]:
    """Yield patterns of experts in one tensor: vLLM asks for layers of each expert by name."""
    for name in ignored:
        if name.rpartition(".")[2] == "experts":
            yield f"re:{re.escape(name)}\\..*"


def _groups_of(section: Mapping[str, Any]) -> list[Any]:
    groups = section.get("config_groups")
    return list(groups.values()) if isinstance(groups, Mapping) else [None]


def _alike(group: Any, layout: Mapping[str, object]) -> bool:  # noqa: ANN401 - a foreign record
    weights = group.get("weights") if isinstance(group, Mapping) else None
    return isinstance(weights, Mapping) and all(
        weights.get(name) == value for name, value in layout.items()
    )
