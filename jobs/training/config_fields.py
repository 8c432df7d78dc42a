"""Which fields a config of a model type may have.

transformers takes any, and leaves unused what it does not know: a misspelled one would train
another model than was meant. A field is known where the type's config has it, or where the sources
of the config or of the model read it; some have no default, and are attributes only where set.
Released configs have others that no model reads (`published_fields.yaml`).
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoModelForCausalLM, configuration_utils, modeling_rope_utils

logger = logging.getLogger(__name__)

_READ = re.compile(
    r"\bconfig\.([a-z]\w*)"
    r"""|getattr\((?:self\.)?config, ["'](\w+)["']"""
    r"""|kwargs\.(?:get|pop)\(\s*["'](\w+)["']"""
)
TYPE = "model_type"  # who has this is a whole config as released
# What a released config says of its files and its code, and not of its model.
_OF_FILES = frozenset(
    {"architectures", "auto_map", "dtype", TYPE, "torch_dtype", "transformers_version"}
    | {"quantization_config", "compression_config"}
)
_ANY = "any"  # of the file: what holds for all types


@dataclass(frozen=True, slots=True, kw_only=True)
class _Published:
    """What released configs of a type have beside what is read.

    Attributes:
        unread: Fields that no model reads.
        only: What the model can't do otherwise, by fields.
        same: Fields that repeat another, with its name.
    """

    unread: tuple[str, ...] = ()
    only: Mapping[str, object] = field(default_factory=dict)
    same: Mapping[str, str] = field(default_factory=dict)


def described(architecture: str, default: Any, fields: Mapping[str, object]) -> dict[str, object]:  # noqa: ANN401 - a config of transformers
    """Return the fields of a model; `default` is a config of its type.

    Of a config as released, which has a `model_type`, what is not known is told and left out.

    Raises:
        ValueError: The model would leave one unused, or do otherwise than it says; the message has
            the nearest that is known.
    """
    released = TYPE in fields
    own = {name: value for name, value in fields.items() if name not in _OF_FILES}
    published = _published().get(architecture, _Published())
    unknown = [
        name
        for name in sorted(own)
        if not hasattr(default, name) and not _says_no_more(published, default, own, name)
    ]
    known = _names_in_source(default) if unknown else set()
    unused = [name for name in unknown if name not in known]
    if released:
        own = {name: value for name, value in own.items() if not name.startswith("_")}
        unused = [name for name in unused if name in own]
        if unused:
            logger.warning("%s reads no %s: left out", architecture, ", ".join(unused))
    elif unused:
        near = get_close_matches(unused[0], known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"model has no field {unused[0]!r} in a config of {architecture!r}{hint}")
    return {name: value for name, value in own.items() if name not in unused}


def _says_no_more(
    published: _Published,
    default: Any,  # noqa: ANN401 - as above
    fields: Mapping[str, object],
    name: str,
) -> bool:
    """Whether a field that is not read says what the model does, or nothing of it.

    Raises:
        ValueError: It says something else.
    """
    value, kind = fields[name], default.model_type
    if name in published.only:
        _check_same(name, value, published.only[name], kind)
    if name in published.same:
        other = published.same[name]
        _check_same(name, value, fields.get(other, getattr(default, other)), kind)
    unread = {*_published()[_ANY].unread, *published.unread}
    return name in unread or name in published.only or name in published.same


def _check_same(name: str, value: object, actual: object, kind: str) -> None:
    if value != actual:
        said = f"model.{name}={value!r} is not what {kind!r} does"
        raise ValueError(f"{said}: it has {actual!r}")


@cache
def _published() -> Mapping[str, _Published]:
    text = Path(__file__).with_name("published_fields.yaml").read_text("utf-8")
    return {kind: _Published(**facts) for kind, facts in yaml.safe_load(text).items()}


def _names_in_source(default: Any) -> set[str]:  # noqa: ANN401 - as above
    kind = type(default)
    modules = {kind.__module__, configuration_utils.__name__, modeling_rope_utils.__name__}
    model = AutoModelForCausalLM._model_mapping.get(kind, None)  # noqa: SLF001 - no public name for it
    modules |= {cls.__module__ for cls in (model if isinstance(model, tuple) else (model,)) if cls}
    read = (inspect.getsource(sys.modules[name]) for name in sorted(modules))
    named = {name for text in read for groups in _READ.findall(text) for name in groups if name}
    return named | {*vars(default), *kind.attribute_map}
