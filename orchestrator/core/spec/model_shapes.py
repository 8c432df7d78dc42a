"""Which models an engine server reads in some format on so many chips, by their `config.json`.

What the readers themselves refuse, when they load:

    blocks of 128 x 128   vLLM and SGLang, `validate_fp8_block_shape`: each part of a fused layer,
                          and the share of a chip in any, has to be whole blocks
    groups of 32 inputs   vLLM, `CompressedTensorsW8A8MXFp8.create_weights`: of each chip's share
    multiples             a kernel's own, which the file of the engine names (SGLang's
                          `int8_scaled_mm`: 8 outputs, 16 inputs)
    experts               formats that it has kernels of dense layers alone for, by the file of the
                          engine (SGLang's and vLLM's int8, but for some makers' chips)

An export leaves layers as they are whose inputs are no whole groups; of a chip's share it knows
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from orchestrator.core.spec.engines import Json
from orchestrator.core.spec.hardware import Format

KEY = "quantization_config"
_GROUP = 32
_BOTH = 2  # rows and columns
# By what compressed-tensors calls a format: its name here.
_COMPRESSED: Mapping[str, Format] = MappingProxyType(
    {"int-quantized": "int8", "mxfp8-quantized": "mxfp8"}
)
# What a folder in a format says of it, as far as shapes go.
RECORDS: Mapping[str, Mapping[str, Json]] = MappingProxyType(
    {
        "fp8": {"weight_block_size": [128, 128]},
        "fp8_ue8m0": {"weight_block_size": [128, 128]},
        "mxfp8": {"format": "mxfp8-quantized"},
        "int8": {"format": "int-quantized"},
    }
)
# `num_experts`, `n_routed_experts`, `num_local_experts`, `moe_num_experts`, ...
_EXPERTS = re.compile(r"(?:^|_)(?:num|n)_(?:\w+_)?experts$")
_GATED = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size")


def unreadable(
    config: Mapping[str, Json],
    tensor: int,
    multiples: Mapping[Format, tuple[int, int]] = MappingProxyType({}),
) -> Iterator[str]:
    """Yield why a reader refuses the layers of a model that `tensor` chips share.

    `multiples` are of which outputs and inputs of a layer have to be, by format.
    """
    quantized = config.get(KEY)
    if not isinstance(quantized, Mapping):
        return
    numbers = _numbers(config)
    over = f"{tensor} chips" if tensor > 1 else "a chip"
    rows, columns = _block_of(quantized)
    for width in _uneven(_outputs(numbers, tensor), rows * tensor):
        yield f"its layers of {width} can't be spread over {over} in blocks of {rows}"
    shared = [width for width in _inputs(numbers) if width % columns == 0] if tensor > 1 else []
    if columns == _GROUP:
        for width in _uneven(shared, columns * tensor):
            yield f"its layers of {width} inputs can't be spread over {over} in groups of {_GROUP}"
    form = _format_of(quantized)
    outputs, inputs = multiples.get(form, (1, 1))
    for width in _uneven(_outputs(numbers, tensor), outputs * tensor):
        yield f"its layers of {width} outputs on {over} are no multiples of {outputs}"
    for width in _uneven(_inputs(numbers), inputs * tensor):
        yield f"its layers of {width} inputs on {over} are no multiples of {inputs}"


def unreadable_experts(config: Mapping[str, Json], dense: Collection[Format]) -> Iterator[str]:
    """Yield why a reader refuses the experts of a model that reads none in formats of `dense`."""
    quantized = config.get(KEY)
    if not isinstance(quantized, Mapping):
        return
    form, numbers = _format_of(quantized), _numbers(config)
    if form in dense and any(_EXPERTS.search(name) and size > 1 for name, size in numbers.items()):
        yield f"it has no kernel of experts in {form!r}"


def _format_of(quantized: Mapping[str, Json]) -> Format:
    return _COMPRESSED.get(str(quantized.get("format")), "bf16")


def _numbers(config: Mapping[str, Json]) -> dict[str, int]:
    text = config.get("text_config")
    inner = {**config, **text} if isinstance(text, Mapping) else config
    return {name: size for name, size in inner.items() if isinstance(size, int)}


def _uneven(widths: Iterator[int] | list[int], by: int) -> list[int]:
    """Return the first of the widths that is no multiple."""
    return [width for width in widths if by > 1 and width % by][:1]


def _block_of(quantized: Mapping[str, Json]) -> tuple[int, int]:
    """Return the rows and columns of the blocks that a folder says it has."""
    said = quantized.get("weight_block_size")
    sizes = [size for size in said if isinstance(size, int)] if isinstance(said, list) else []
    if len(sizes) == _BOTH:
        return sizes[0], sizes[1]
    grouped = _COMPRESSED.get(str(quantized.get("format"))) == "mxfp8"
    return 1, _GROUP if grouped else 1


def _outputs(numbers: Mapping[str, int], tensor: int) -> Iterator[int]:
    """Yield the rows of the parts of a model's layers that `tensor` chips share.

    On one chip those of layers that servers fuse: queries with keys and values, gates with ups.
    """
    yield from (numbers[name] for name in _GATED if numbers.get(name))
    heads = numbers.get("num_attention_heads", 0)
    if not numbers.get("kv_lora_rank"):
        keys = numbers.get("num_key_value_heads", heads)
        each = _of_a_head(numbers)
        yield from (each * heads, each * (max(keys, tensor) if keys else 0))
    elif tensor > 1:
        nope, rope, value = (
            numbers.get(name, 0) for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        )
        for width in (nope + rope, nope + value, value):
            yield width * heads


def _inputs(numbers: Mapping[str, int]) -> Iterator[int]:
    """Yield the columns of the layers whose inputs chips share: after experts and attention."""
    yield from (numbers[name] for name in _GATED if numbers.get(name))
    latent = numbers.get("kv_lora_rank")
    each = numbers.get("v_head_dim", 0) if latent else _of_a_head(numbers)
    yield each * numbers.get("num_attention_heads", 0)


def _of_a_head(numbers: Mapping[str, int]) -> int:
    heads = max(numbers.get("num_attention_heads", 0), 1)
    return numbers.get("head_dim") or numbers.get("hidden_size", 0) // heads
