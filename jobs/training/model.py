"""Builds the causal language model that is trained.

Weights are kept in float32, whatever the files they came from; lower precision is a matter of
autocast in the forward pass.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME, logging

from jobs.engines.weights import say_ties
from jobs.training import config_fields

# A small Llama: what `architecture: llama` means where the config says no more.
SMALL: Mapping[str, object] = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
}


def build(architecture: str, overrides: Mapping[str, object], tokenizer: Any) -> nn.Module:  # noqa: ANN401 - foreign type
    """Make a fresh model of a transformers architecture, fitted to the tokenizer."""
    config = config_of(architecture, overrides, tokenizer)
    model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


def outline(architecture: str, overrides: Mapping[str, object]) -> nn.Module:
    """Make the model of an architecture without its weights, for any tokenizer."""
    config = config_of(architecture, overrides)
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


def empty(config: Any, generation_config: Any) -> nn.Module:  # noqa: ANN401 - foreign types
    """Make the model of a config without its weights, in float32."""
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config = generation_config
    module: nn.Module = model
    return module


def config_of(architecture: str, overrides: Mapping[str, object], tokenizer: Any = None) -> Any:  # noqa: ANN401 - foreign types
    """Return the config of a model of a transformers architecture, fitted to the tokenizer.

    Raises:
        ValueError: There is no such architecture, or it has no such field.
    """
    try:
        default = AutoConfig.for_model(architecture)
    except ValueError as error:
        raise ValueError(
            f"architecture={architecture!r} is none that transformers knows; "
            f"give a model type such as 'llama', 'qwen3' or 'gpt2'"
        ) from error
    values = {
        **(SMALL if architecture == "llama" else {}),
        **(_of_tokenizer(tokenizer) if tokenizer is not None else {}),
        **config_fields.described(architecture, default, overrides),
    }
    return AutoConfig.for_model(architecture, **values)


def _of_tokenizer(tokenizer: Any) -> dict[str, object]:  # noqa: ANN401 - foreign type
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def save_shape(model: Any, folder: Path) -> None:  # noqa: ANN401 - a transformers model
    """Write what the model is like, without its weights."""
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def shape(folder: Path, names: Collection[str] = ()) -> nn.Module:
    """Make the model that `save_shape` described, in float32; its weights are fresh.

    What has a name of its own among `names`, those of its weights, is tied to nothing.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if (folder / GENERATION_CONFIG_NAME).exists():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    _untie(model, names)
    say_ties(model)
    module: nn.Module = model
    return module


def _untie(model: nn.Module, names: Collection[str]) -> None:
    """Give each weight that has a name of its own among `names` numbers of its own."""
    own = {name for name, _ in model.named_parameters()}
    for name, weight in list(model.named_parameters(remove_duplicate=False)):
        if name in names and name not in own:
            place, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(place), attribute, nn.Parameter(weight.detach().clone()))


def save(model: Any, folder: Path, dtype: torch.dtype | None = None) -> None:  # noqa: ANN401 - a transformers model
    """Write config and safetensors, without a progress bar in the log.

    Weights are turned into `dtype` where that loses nothing; buffers are not.
    """
    logging.disable_progress_bar()
    for weight in model.parameters() if dtype else ():
        smaller = weight.data.to(dtype)
        weight.data = (
            smaller if torch.equal(smaller.to(weight.dtype), weight.data) else weight.data
        )
    model.save_pretrained(folder)


def parameters(model: nn.Module) -> int:
    """Return the number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
