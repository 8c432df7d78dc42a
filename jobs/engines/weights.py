"""Reads the weights of a model folder, and refuses what would not serve rightly.

The folder may be in any format that `jobs.formats` knows; what is quantised is dequantised to the
type of the calculation. transformers itself makes up a tensor that is missing, at random, and says
so in a warning only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME, logging

from jobs.formats.folder import Folder, tensor_names
from jobs.formats.records import KEY
from jobs.formats.safety import CONFIG, files_of, is_divided
from jobs.formats.tensor_parts import divided
from jobs.formats.tied_head import ties, untie

# Fields of a config that say how it was written, or what its caller does with it.
ASIDE = frozenset(
    {"transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache"}
    | {"bos_token_id", "eos_token_id", "pad_token_id"}
)

# How many layers predict tokens after the next, by the names that types give it.
_FURTHER_LAYERS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
_LAYER = re.compile(r"^(?:model\.)?layers\.(\d+)\.")


def load(
    folder: Path, dtype: str | torch.dtype, device: str, computes_on: str | None = None
) -> Any:  # noqa: ANN401 - any causal language model of transformers
    """Return the model in `folder` on `device`, ready to serve.

    `auto` is the type in which it was saved, or float32 where what computes (`device`, unless
    something else is said) is a CPU that has no arithmetic for that.

    Raises:
        ValueError: There is none, or a tensor is missing, is superfluous, has a wrong shape or has
            values that are no finite numbers.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no model folder {str(folder)!r}")
    logging.disable_progress_bar()
    try:
        source = Folder(folder)
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        stored = _stored(config, source) if dtype == "auto" else dtype
        model, loading = _filled(source, config, stored)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the model in {str(folder)!r} can't be loaded: {reason}") from error
    _check_complete(folder, loading)
    _check_finite(folder, model)
    say_ties(model)
    if dtype == "auto" and computing(model.dtype, computes_on or device) != model.dtype:
        model.float()
    return model.to(device).eval()


def computing(stored: torch.dtype, device: str) -> torch.dtype:
    """Return the type in which `device` computes with weights of a type.

    A CPU without instructions for a type of 16 bits is some 7 times slower with it than with
    float32; what the CPU beside an accelerator has does not matter. Those of AVX-512 count where
    torch may use them (`ATEN_CPU_CAPABILITY`).
    """
    if device.partition(":")[0] != "cpu":
        return stored
    able: Mapping[str, object] = torch.cpu.get_capabilities()
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    wanted = {torch.bfloat16: ("avx512_bf16", "bf16"), torch.float16: ("avx512_fp16", "fp16")}
    if stored not in wanted:
        return stored
    ours, arms = wanted[stored]
    return stored if (able.get(ours) and wide) or able.get(arms) else torch.float32


def types(folder: Path, model: Any) -> Mapping[str, str]:  # noqa: ANN401 - as above
    """Return the format in which a folder's weights are stored, and the type they compute in."""
    source = Folder(folder)
    stored = _type_name(_stored(model.config, source, declared=False))
    return {
        "stored": source.scheme.form if source.scheme is not None else stored,
        "computed": _type_name(model.dtype),
    }


def changed(model: Any, folder: Path) -> Any:  # noqa: ANN401 - as above
    """Return a copy of `model` that has the tensors of `folder`, which are some of its own.

    Raises:
        ValueError: There are none, or one is superfluous, has a wrong shape or values that are no
            finite numbers.
    """
    tensors = _tensors(folder, model.dtype)
    copied = deepcopy(model)
    own = copied.state_dict()
    for name, tensor in tensors.items():
        if name not in own and _predicts_further(name, model.config):
            continue
        if name not in own:
            raise ValueError(f"{str(folder)!r} has a tensor that the model has not: {name}")
        if own[name].shape != tensor.shape:
            raise ValueError(
                f"tensor {name} of {str(folder)!r} has the shape {tuple(tensor.shape)}, not "
                f"{tuple(own[name].shape)}"
            )
        if not tensor.isfinite().all():
            raise ValueError(f"tensor {name} of {str(folder)!r} has values that are not finite")
        with torch.no_grad():
            own[name].copy_(tensor)
    return copied


def shape(model: Any) -> Mapping[str, object]:  # noqa: ANN401 - as above
    """Return all that a model is beside its weights: its class, and the fields of its config."""
    fields = {**model.config.to_dict(), "class": type(model).__name__}
    return {name: value for name, value in fields.items() if name not in ASIDE}


def check_alike(folder: Path, new: Mapping[str, object], serving: Mapping[str, object]) -> None:
    """Check that the model of `folder` has the shape of the one that serves.

    Raises:
        ValueError: It has another architecture, or a field of its config differs.
    """
    for field in sorted(set(new) | set(serving), key=lambda field: (field != "class", field)):
        if new.get(field) != serving.get(field):
            raise ValueError(
                f"{str(folder)!r} can't take the place of the model that serves: its {field} is "
                f"{new.get(field)!r}, not {serving.get(field)!r}; deploy it as a new revision"
            )


def check_tokenizer(folder: Path, serving: Path) -> None:
    """Check that a tokenizer in `folder`, if there is one, is that of the folder that serves.

    Raises:
        ValueError: It has other tokens.
    """
    name = "tokenizer.json"
    if not ((folder / name).exists() and (serving / name).exists()):
        return
    new, old = (json.loads((place / name).read_bytes()) for place in (folder, serving))
    if any(new.get(part) != old.get(part) for part in ("model", "added_tokens")):
        raise ValueError(
            f"{str(folder / name)!r} has other tokens than the model that serves; "
            f"deploy it as a new revision"
        )


def say_ties(model: Any) -> None:  # noqa: ANN401 - a transformers model
    """Have the config say that the head is no other's weight, where that is so.

    transformers doesn't tie a head that a folder holds beside other embeddings, whatever its
    config says; and whoever reads what is saved of the model believes the config.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    weights = [getattr(part, "weight", None) for part in (head, embeddings)]
    if any(weight is None for weight in weights) or weights[0] is weights[1]:
        return
    if ties(model.config):
        untie(model.config)
        model.all_tied_weights_keys = {}  # what transformers derived from that field


def further_layers(folder: Path) -> tuple[str, ...]:
    """Return the layers of a folder that predict tokens after the next: no model here has them."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    names = tensor_names(folder) if _further(config.get_text_config()) else ()
    layers = {
        int(match[1]): match[0].removesuffix(".")
        for name in names
        if _predicts_further(name, config) and (match := _LAYER.search(name))
    }
    return tuple(layers[number] for number in sorted(layers))


def say_no_further_layers(model: Any) -> None:  # noqa: ANN401 - a transformers model
    """Have the config say that no layer predicts tokens after the next, as is so of the model."""
    text = model.config.get_text_config()
    for field in _FURTHER_LAYERS:
        if getattr(text, field, None):
            setattr(text, field, 0)


class _Weight:
    """A tensor that is read when it is wanted, by the threads of transformers."""

    def __init__(self, source: Folder, name: str, dtype: torch.dtype) -> None:
        self._source, self._name, self._dtype = source, name, dtype

    def __getitem__(self, _: object) -> torch.Tensor:
        return self._source.read(self._name, self._dtype)


def _filled(
    source: Folder,
    config: Any,  # noqa: ANN401 - foreign and untyped
    dtype: str | torch.dtype,
) -> tuple[Any, Mapping[str, Any]]:
    """Return the model with its weights, and what transformers tells of them."""
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    if hasattr(config, KEY):
        delattr(config, KEY)  # it is plain once it is read
    with torch.device("meta"):
        kind = type(AutoModelForCausalLM.from_config(config))
    model, loading = kind.from_pretrained(
        None,
        config=config,
        state_dict={
            name: _Weight(source, name, wanted)
            for name in source.specs
            if not _predicts_further(name, config)
        },
        dtype=wanted,
        output_loading_info=True,
    )
    _put_back_cleared_rows(model, source)
    if (source.path / GENERATION_CONFIG_NAME).exists():
        model.generation_config = GenerationConfig.from_pretrained(
            source.path, local_files_only=True
        )
    return model, loading


def _put_back_cleared_rows(model: Any, source: Folder) -> None:  # noqa: ANN401 - as above
    """Have the row of the padding token be what is stored, where it is nothing but zeros.

    transformers clears that row of embeddings that it makes up; of Youtu's, of those it has read.
    Where they are the head too, the token's score would be none of the model's.
    """
    for name, part in model.named_modules():
        if not isinstance(part, nn.Embedding) or part.padding_idx is None:
            continue
        weight, row = f"{name}.weight", part.weight.data[part.padding_idx]
        if weight in source.specs and not row.any():
            row.copy_(source.read(weight, row.dtype)[part.padding_idx])


def _stored(config: Any, source: Folder, *, declared: bool = True) -> torch.dtype:  # noqa: ANN401 - as above
    """Return the type in which the weights were saved, or from which they were quantised.

    The config may declare it; else it is the first tensor's.
    """
    floats = (spec.dtype for spec in source.specs.values() if spec.dtype.is_floating_point)
    stored: torch.dtype = (config.dtype if declared else None) or next(floats, torch.float32)
    return stored


def _type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _tensors(folder: Path, dtype: torch.dtype) -> Mapping[str, torch.Tensor]:
    """Return the tensors of a folder, which need not be a whole model's."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r}")
    if (folder / CONFIG).exists():
        source = Folder(folder)
        return {name: source.read(name, dtype) for name in source.specs}
    tensors: dict[str, torch.Tensor] = {}
    try:
        files = files_of(folder)[0]
        if is_divided(folder):
            return {name: parts.read() for name, parts in divided(files).items()}
        for file in files:
            tensors |= load_file(file)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the tensors in {str(folder)!r} can't be read: {reason}") from error
    return tensors


def _check_complete(folder: Path, loading: Mapping[str, Any]) -> None:
    for kind in ("missing", "mismatched", "unexpected"):
        names = sorted(str(key) for key in loading[f"{kind}_keys"])
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"the model in {str(folder)!r} has {kind} tensors: {names[0]}{more}")


def _predicts_further(name: str, config: Any) -> bool:  # noqa: ANN401 - foreign and untyped
    """Whether a tensor is of a layer that predicts tokens after the next, which no model here has.

    Such layers stand behind those of the model. transformers passes over them by the numbers that
    they have in what was released.
    """
    text = config.get_text_config()
    further = _further(text)
    match = _LAYER.search(name)
    if not further or match is None:
        return False
    layers: int = text.num_hidden_layers
    return layers <= int(match[1]) < layers + further


def _further(text: Any) -> int:  # noqa: ANN401 - as above
    """Return how many layers predict tokens after the next, as the config of a text part says."""
    return max(getattr(text, field, None) or 0 for field in _FURTHER_LAYERS)


def _check_finite(folder: Path, model: Any) -> None:  # noqa: ANN401 - as above
    for name, weight in model.state_dict().items():  # buffers too: biases that choose experts
        if not weight.isfinite().all():
            raise ValueError(f"tensor {name} of {str(folder)!r} has values that are not finite")
