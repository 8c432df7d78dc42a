"""What SGLang's own readers make of a folder: run by the Python of an environment that has SGLang.

It makes each of the folder's linear layers by SGLang's own class and config, hands the stored
tensors to the loaders of its parameters, and prints as JSON what each layer has become. Nothing is
computed: kernels want a GPU. What they import of the packages in `ABSENT` is hollow.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

# Of other models, of notebooks and of kernels for GPUs; no reader of a format asks them anything.
ABSENT = ("IPython", "sentencepiece", "torchvision", "tvm_ffi")
PACKED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
CAPABILITY = (10, 0)  # what its readers are told of the chip: Blackwell's, which has MXFP8
OPERATORS = ("npu_dynamic_quant", "npu_dynamic_mx_quant")  # of torch_npu, by name alone
MODELSLIM = "quant_model_description.json"


class HollowType(type):
    """The type of names that stand for nothing; a decorator of them returns what it decorates."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __call__(cls, *values: Any, **_: Any) -> Any:
        return values[0] if values else cls


class Hollow(metaclass=HollowType):
    """A name of an absent package."""


class HollowModule(ModuleType):
    """An absent package: each name in it is hollow."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Hollow


class AbsentPackages(MetaPathFinder, Loader):
    """Finds the packages in `ABSENT`."""

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        """Return a hollow package where `fullname` is absent."""
        absent = fullname.partition(".")[0] in ABSENT
        return ModuleSpec(fullname, self, is_package=True) if absent else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the package."""
        return HollowModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it as it is."""


def config_of(folder: Path) -> Any:
    """Return SGLang's config of what the folder says of its quantization."""
    quantization = "sglang.srt.layers.quantization"
    if (folder / MODELSLIM).exists():
        reader = importlib.import_module(f"{quantization}.modelslim.modelslim").ModelSlimConfig
        config = reader.from_config(json.loads((folder / MODELSLIM).read_text()))
    else:
        said = json.loads((folder / "config.json").read_text())["quantization_config"]
        fp8 = said["quant_method"] != "compressed-tensors"
        module, name = (
            ("fp8", "Fp8Config")
            if fp8
            else ("compressed_tensors.compressed_tensors", "CompressedTensorsConfig")
        )
        config = getattr(importlib.import_module(f"{quantization}.{module}"), name).from_config(
            said
        )
    config.packed_modules_mapping = {**PACKED, "model": PACKED}  # as its loader does
    return config


def kind(method: Any, layer: Any) -> str:
    """Return the name of the class that computes a layer."""
    return type(getattr(layer, "scheme", None) or method).__name__


def layers(config: Any, stored: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each linear layer by its name, with its kind and what does not fit it."""
    linear = importlib.import_module("sglang.srt.layers.linear").ReplicatedLinear
    for name, weight in stored.items():
        if not name.endswith(".weight") or weight.ndim != 2 or "embed" in name:
            continue
        prefix = name.removesuffix(".weight")
        layer = linear(*reversed(weight.shape), bias=False, quant_config=config, prefix=prefix)
        wrong = list(misfits(layer, prefix, stored))
        yield prefix, {"kind": kind(layer.quant_method, layer), "wrong": wrong}


def misfits(layer: Any, prefix: str, stored: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of the layer is not stored, is stored in another type, or is refused by it."""
    wanted = dict(layer.named_parameters())
    given = {
        name.removeprefix(f"{prefix}."): name
        for name in stored
        if name.startswith(f"{prefix}.weight")
    }
    yield from (f"{suffix} is not stored" for suffix in wanted.keys() - given.keys())
    yield from (f"{suffix} is not read" for suffix in given.keys() - wanted.keys())
    for suffix in wanted.keys() & given.keys():
        parameter, tensor = wanted[suffix], stored[given[suffix]]
        if tensor.itemsize == 1 and parameter.dtype != tensor.dtype:
            yield f"{suffix} is {tensor.dtype}, not {parameter.dtype}"
        try:
            layer.weight_loader(parameter, tensor)
        except AssertionError as error:
            yield f"{suffix}: {error}"


def read(folder: Path) -> dict[str, Any]:
    """Return what SGLang makes of a folder: its layers, those that it fuses, and its experts."""
    stored = importlib.import_module("safetensors.torch").load_file(folder / "model.safetensors")
    config = config_of(folder)
    made = dict(layers(config, stored))
    plain = importlib.import_module("sglang.srt.layers.linear").ReplicatedLinear(1, 1, bias=False)
    fused = {}
    for prefix, (stem, whole) in fusions(made).items():
        fused[prefix] = kind(config.get_quant_method(plain, f"{stem}.{whole}"), plain)
    stems = {name.partition(".experts.")[0] for name in made if ".experts." in name}
    experts = {stem: expert_kind(config, plain, f"{stem}.experts") for stem in sorted(stems)}
    return {"layers": made, "fused": fused, "experts": experts}


def fusions(names: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return by the first part of each layer that SGLang fuses what it is in, and its name."""
    found = {}
    for prefix in names:
        stem, _, last = prefix.rpartition(".")
        for whole, parts in PACKED.items():
            if last == parts[0] and all(f"{stem}.{part}" in names for part in parts):
                found[prefix] = stem, whole
    return found


def expert_kind(config: Any, layer: Any, prefix: str) -> str:
    """Return what computes the experts of a layer, or why nothing does; empty: plain weights."""
    if hasattr(config, "get_moe_scheme"):
        try:
            scheme = config.get_moe_scheme(layer, prefix)
        except NotImplementedError as error:
            return f"refused: {error}"
        first = scheme[0] if isinstance(scheme, tuple) else scheme
        return "" if first is None else type(first).__name__
    utils = importlib.import_module("sglang.srt.layers.quantization.utils")
    skipped = utils.is_layer_skipped(prefix, config.ignored_layers, config.packed_modules_mapping)
    return "" if skipped else "Fp8MoEMethod"


def main(folders: list[str]) -> None:
    """Print what SGLang makes of each folder, a line of JSON each."""
    importlib.import_module(
        "transformers.models.auto.image_processing_auto"
    )  # finds no torchvision
    sys.meta_path.append(AbsentPackages())
    torch = importlib.import_module("torch")
    torch.cuda.get_device_capability = lambda *_: CAPABILITY
    operators = torch.library.Library("npu", "FRAGMENT")
    for name in OPERATORS:
        operators.define(f"{name}(Tensor x) -> Tensor")
    torch.set_default_dtype(torch.bfloat16)
    for folder in folders:
        print(json.dumps(read(Path(folder))))


if __name__ == "__main__":
    main(sys.argv[1:])
