"""Which weights of a model are quantized: those of its linear layers, experts included.

The modules in memory decide, and transformers' own map says which of them a tensor on disk goes
to: the names there may be others (`attn.wq_a` of DeepSeek-V4), and experts that are one tensor in
memory are one for each expert on disk. Whatever is not quantized is named for the readers:
embeddings, heads, routers that choose experts, what mixes the streams of hyper-connections,
convolutions, experts in one tensor on disk too, and the mixers of Mamba-1: no server has scales
for those.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from transformers import AutoModelForCausalLM
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    build_glob_alternation,
    rename_source_key,
)

from jobs.formats.headers import Spec
from jobs.formats.schemes import Scheme

# What weighs experts or heads; a small error there sends a token elsewhere.
_ROUTERS = ("gate", "router", "weights_proj")
_MIXER = "hyper_connection"  # it weighs streams of the residual
_WEIGHT = ".weight"
_PLANE = 2
_NUMBER = re.compile(r"\.\d+\.")


@dataclass(frozen=True, slots=True)
class QuantizationChoice:
    """What becomes of the tensors of a model, by their names on disk.

    Attributes:
        quantized: The weights that are quantized.
        ignored: Names of the modules that hold any other weight of two or more dimensions, on disk
            and in memory where those differ: what a reader must not take for quantized.
        in_float32: The tensors that stay float32 whatever the format.
        not_linear: Those of `ignored` that no reader takes for linear layers: embeddings and
            convolutions.
        places: Of each tensor on disk those in memory that it becomes, or is a part of; none where
            the model has none.
        tied: The head and the embeddings on disk, where both are stored and the config says that
            they are one.
    """

    quantized: frozenset[str]
    ignored: tuple[str, ...]
    in_float32: frozenset[str] = frozenset()
    not_linear: frozenset[str] = frozenset()
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tied: tuple[tuple[str, str], ...] = ()

    @property
    def quantized_in_memory(self) -> frozenset[str]:
        """The tensors in memory that are quantized on disk, or have a part that is."""
        return frozenset(place for name in self.quantized for place in self.places[name])


def choose(
    config: Any,  # noqa: ANN401 - a transformers config
    specs: Mapping[str, Spec],
    scheme: Scheme | None = None,
    stored: Collection[str] | None = None,
) -> QuantizationChoice:
    """Return the choice for a model of this config, stored as `specs` say.

    Of `scheme`, what is made, readers take only some shapes. `stored` names what is quantized
    already: that is then what is chosen.

    Raises:
        ValueError: A tensor of the model is not there, or not all of it.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(deepcopy(config), dtype=torch.bfloat16)
    tensors: Mapping[str, Tensor] = model.state_dict()
    places = dict(zip(specs, _places(model, tensors, specs), strict=True))
    quantized = _quantized(model, tensors, places, specs, scheme) if stored is None else {*stored}
    splits = [*_splits(model)]
    parts = {name: tuple(_parts(splits, tensors, place)) for name, place in places.items()}
    _check_whole(model, tensors, specs, parts)
    in_memory = {part for name in quantized for part in parts[name]}
    modules = {
        name: _module(name, quantized)
        for name, spec in specs.items()
        if len(spec.shape) >= _PLANE and name not in quantized
    }
    linear = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and f"{name}{_WEIGHT}" not in in_memory
    }
    others = _not_linear(model)
    return QuantizationChoice(
        frozenset(quantized),
        tuple(sorted({*modules.values(), *linear}, key=_natural)),
        frozenset(_in_float32(model, tensors, places)),
        frozenset(module for name, module in modules.items() if places[name] in others),
        parts,
        tuple(_tied(model, parts)),
    )


def _quantized(
    model: Any,  # noqa: ANN401 - as above
    tensors: Mapping[str, Tensor],
    places: Mapping[str, str | None],
    specs: Mapping[str, Spec],
    scheme: Scheme | None,
) -> set[str]:
    """Return the names on disk of what is quantized."""
    linear = _linear(model)
    quantized = {
        name
        for name, place in places.items()
        if place and _is_quantizable(specs[name].shape, place, tensors[place], linear)
    }
    quantized |= _alike(quantized, {name for name, place in places.items() if place is None})
    return _fitting(quantized, specs, places, scheme) if scheme else quantized


def _places(
    model: Any,  # noqa: ANN401 - any causal language model of transformers
    tensors: Mapping[str, Tensor],
    names: Iterable[str],
) -> Iterator[str | None]:
    """Yield for each name on disk the tensor in memory that it becomes, or a part of.

    `None` where the model has none, as of the layers of DeepSeek-V3 that predict further tokens.
    """
    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    prefix = model.base_model_prefix
    for name in names:
        renamed, _ = rename_source_key(name, renamings, converters, prefix, tensors)
        if renamed not in tensors and name in tensors:
            renamed = name
        if renamed not in tensors:
            renamed, _ = rename_source_key(name, [], [], prefix, tensors)
        yield renamed if renamed in tensors else None


def _splits(model: Any) -> Iterator[tuple[str, ...]]:  # noqa: ANN401 - as above
    """Yield the parts of the names in memory of what is one tensor on disk."""
    for transform in get_model_conversion_mapping(model):
        if isinstance(transform, WeightConverter) and len(transform.target_patterns) > 1:
            yield tuple(transform.target_patterns)


def _parts(
    splits: Iterable[tuple[str, ...]], tensors: Mapping[str, Tensor], place: str | None
) -> Iterator[str]:
    """Yield the tensors in memory that the one which becomes `place` is split into."""
    if place is None:
        return
    yield place
    for first, *rest in splits:
        parts = [place.replace(first, other) for other in rest if first in place]
        yield from (part for part in parts if part in tensors and part != place)


def _check_whole(
    model: Any,  # noqa: ANN401 - as above
    tensors: Mapping[str, Tensor],
    specs: Mapping[str, Spec],
    parts: Mapping[str, tuple[str, ...]],
) -> None:
    """Check that all values of the model are on disk: whatever becomes of them, none is lost."""
    stored: Counter[tuple[str, ...]] = Counter()
    for name, places in parts.items():
        stored[places] += prod(specs[name].shape)
    stored.pop((), None)  # of what the model does not know
    for places in [*stored, *((name,) for name in _missing(model, tensors, parts))]:
        wanted = sum(tensors[place].numel() for place in places)
        if stored[places] != wanted:
            raise ValueError(
                f"the model has {stored[places]:,} of the {wanted:,} values that its config gives "
                f"tensor {places[0]}; fetch it again"
            )


def _missing(
    model: Any,  # noqa: ANN401 - as above
    tensors: Mapping[str, Tensor],
    parts: Mapping[str, tuple[str, ...]],
) -> Iterator[str]:
    """Yield the tensors in memory that nothing on disk becomes, nor what they are tied to."""
    targets = {place for places in parts.values() for place in places}
    tied = [{*pair} for pair in model.all_tied_weights_keys.items()]
    optional = getattr(model, "_keys_to_ignore_on_load_missing", None) or ()
    for name in sorted(tensors.keys() - targets):
        alike = {other for pair in tied if name in pair for other in pair}
        if alike.isdisjoint(targets) and not any(re.search(kind, name) for kind in optional):
            yield name


def _tied(
    model: Any,  # noqa: ANN401 - as above
    parts: Mapping[str, tuple[str, ...]],
) -> Iterator[tuple[str, str]]:
    """Yield head and embeddings by their names on disk, where they are one in memory alone."""
    head = model.get_output_embeddings()
    heads = {f"{name}{_WEIGHT}" for name, module in model.named_modules() if module is head}
    on_disk = {places[0]: name for name, places in parts.items() if places}
    for name, other in model.all_tied_weights_keys.items():
        if not heads.isdisjoint((name, other)) and {name, other} <= on_disk.keys():
            yield on_disk[name], on_disk[other]


def _not_linear(model: Any) -> set[str]:  # noqa: ANN401 - as above
    """Return the weights that look rows up, or that are convolved."""
    return {
        f"{name}{_WEIGHT}"
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding | _ConvNd)
    }


def _linear(model: Any) -> set[str]:  # noqa: ANN401 - as above
    """Return the weights of the linear layers that are no head and weigh nothing else."""
    head = model.get_output_embeddings()
    mixers = {name for name, module in model.named_modules() if _is_mamba(module)}
    return {
        f"{name}{_WEIGHT}"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and not _is_weighing(name)
        and name.rpartition(".")[0] not in mixers
    }


def _is_mamba(module: nn.Module) -> bool:
    """Return whether a module is a mixer of Mamba-1, which projects time steps of its own."""
    parts = {name for name, _ in (*module.named_children(), *module.named_parameters())}
    return "A_log" in parts and not parts.isdisjoint({"dt_proj", "dt_proj_weight"})


def _is_weighing(name: str) -> bool:
    """Return whether a layer is a router, or mixes the streams of hyper-connections."""
    return _MIXER in name or any(part.endswith(_ROUTERS) for part in name.split(".")[-2:])


def _is_quantizable(shape: tuple[int, ...], place: str, weight: Tensor, linear: set[str]) -> bool:
    """Return whether a tensor on disk is of a linear layer, or one of experts in one tensor."""
    if len(shape) != _PLANE or shape[1] != weight.shape[-1]:
        return False
    return place in linear or weight.ndim == _PLANE + 1


def _alike(quantized: Iterable[str], unknown: Iterable[str]) -> set[str]:
    """Return those that the model does not know and that are quantized in its other layers."""
    known = {_NUMBER.sub(".*.", name, count=1) for name in quantized}
    return {name for name in unknown if _NUMBER.sub(".*.", name, count=1) in known}


def _fitting(
    quantized: set[str],
    specs: Mapping[str, Spec],
    places: Mapping[str, str | None],
    scheme: Scheme,
) -> set[str]:
    """Return what readers take in this shape; of experts in one tensor all projections or none."""

    def together(name: str) -> str:
        place = places[name] or name
        return name if place.endswith(_WEIGHT) else place.rpartition(".")[0]

    out = {together(name) for name in quantized if not scheme.fits(specs[name].shape)}
    return {name for name in quantized if together(name) not in out}


def _module(name: str, quantized: set[str]) -> str:
    """Return the module of a tensor, or the tensor itself where the module has quantized ones."""
    module, _, own = name.rpartition(".")
    if own == "weight" and module:
        return module
    beside = module and not any(weight.startswith(f"{module}.") for weight in quantized)
    return module if beside else name


def _in_float32(
    model: Any,  # noqa: ANN401 - as above
    tensors: Mapping[str, Tensor],
    places: Mapping[str, str | None],
) -> Iterator[str]:
    """Yield what transformers keeps in float32, whatever type it loads a model in."""
    strict = getattr(model, "_keep_in_fp32_modules_strict", None)
    pattern = build_glob_alternation(sorted(strict))[0] if strict else None
    for name, place in places.items():
        if place is None:
            continue
        if tensors[place].dtype == torch.float32 or (pattern and pattern.search(place)):
            yield name


def _natural(name: str) -> list[tuple[int, str]]:
    """Return the key by which layer 2 stands before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
