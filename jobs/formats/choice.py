"""Which weights of a model are quantised: those of its linear layers, experts included.

Embeddings, the head, norms, biases and the gates that choose experts are not. The model itself
says which of its modules are linear; it is made without memory for that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from jobs.formats.headers import Spec

# transformers holds experts fused, and stores each one by itself.
_EXPERT = re.compile(r"\.experts\.\d+\.\w+\.weight$")
_GATES = ("gate", "router")
_WEIGHT = ".weight"
_PLANE = 2


@dataclass(frozen=True, slots=True)
class Choice:
    """What becomes of the tensors of a model.

    Attributes:
        coded: Names of the weights that are quantised.
        whole: Names of the linear layers that are not.
        wide: Parts of names that stay float32 whatever the format.
    """

    coded: frozenset[str]
    whole: tuple[str, ...]
    wide: tuple[str, ...]

    def is_wide(self, name: str) -> bool:
        """Return whether a tensor stays float32."""
        return any(part in name for part in self.wide)


def choose(config: Any, specs: Mapping[str, Spec]) -> Choice:  # noqa: ANN401 - a transformers config
    """Return the choice for a model of this config, stored as `specs` say."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    head = model.get_output_embeddings()
    able = {name for name in linear if model.get_submodule(name) is not head and not _gate(name)}
    coded = frozenset(
        name
        for name, spec in specs.items()
        if len(spec.shape) == _PLANE
        and (name.removesuffix(_WEIGHT) in able or _EXPERT.search(name))
    )
    whole = (name for name in linear if f"{name}{_WEIGHT}" not in coded)
    wide = tuple(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    return Choice(coded, tuple(sorted(whole)), tuple(sorted(wide)))


def _gate(name: str) -> bool:
    return name.rpartition(".")[2].endswith(_GATES)
