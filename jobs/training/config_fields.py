"""Which fields a config of a model type may have.

transformers takes any, and leaves unused what it does not know: a misspelled one would train
another model than was meant. A field is known where the type's config has it, or where the sources
of the config or of the model read it; some have no default, and are attributes only where set.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from transformers import AutoModelForCausalLM, configuration_utils, modeling_rope_utils

_READ = re.compile(
    r"\bconfig\.([a-z]\w*)"
    r"""|getattr\((?:self\.)?config, ["'](\w+)["']"""
    r"""|kwargs\.(?:get|pop)\(\s*["'](\w+)["']"""
)
# What published configs say that no model reads.
_UNREAD = frozenset({"auto_map", "ep_size", "max_window_layers", "pretraining_tp"})
# What published configs say of what a model can't do otherwise.
_ONLY: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {"deepseek_v3": {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1}}
)


def check(architecture: str, default: Any, fields: Mapping[str, object]) -> None:  # noqa: ANN401 - a config of transformers
    """Refuse a field that the model would leave unused. `default` is a config of the type.

    Raises:
        ValueError: There is one; the message has the nearest that is known.
    """
    only = _ONLY.get(architecture, {})
    unknown = [name for name in sorted(fields) if not hasattr(default, name)]
    for name in unknown:
        if name in only:
            if fields[name] != only[name]:
                said = f"model.{name}={fields[name]!r} is not what {architecture!r} does"
                raise ValueError(f"{said}: it has {only[name]!r}")
        elif name not in _UNREAD and name not in (known := _known(default)):
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"model has no field {name!r} in a config of {architecture!r}{hint}")


def _known(default: Any) -> set[str]:  # noqa: ANN401 - as above
    kind = type(default)
    modules = {kind.__module__, configuration_utils.__name__, modeling_rope_utils.__name__}
    model = AutoModelForCausalLM._model_mapping.get(kind, None)  # noqa: SLF001 - no public name for it
    modules |= {cls.__module__ for cls in (model if isinstance(model, tuple) else (model,)) if cls}
    read = (inspect.getsource(sys.modules[name]) for name in sorted(modules))
    named = {name for text in read for groups in _READ.findall(text) for name in groups if name}
    return named | {*vars(default), *kind.attribute_map}
