"""How a model folder says its format to what reads Ascend's: `quant_model_description.json`.

ModelSlim, Huawei's tool, writes it, and vllm-ascend reads it: the kind of each tensor by its name,
`FLOAT` where it is not quantized. Beside it the config says nothing, so that software that does
not know this file takes the codes for weights: such a folder is for these readers alone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from jobs.formats import safety
from jobs.formats.schemes import MODELSLIM, Scheme, scheme_for

FILE = "quant_model_description.json"
KINDS: Mapping[str, str] = MappingProxyType({"int8": "W8A8_DYNAMIC", "mxfp8": "W8A8_MXFP8"})
_PLAIN = "FLOAT"
_KIND = "model_quant_type"
VERSION = "version"


def write(folder: Path, form: str, names: Iterable[str], quantized: Collection[str]) -> None:
    """Write what each tensor is: those of `quantized` in `form`, with their scales and offsets."""
    said = description(form, names, quantized)
    if said:
        (folder / FILE).write_text(f"{json.dumps(said, indent=2)}\n", "utf-8")


def description(
    form: str, names: Iterable[str], quantized: Collection[str]
) -> Mapping[str, object]:
    """Return what the description of a folder in `form` says; nothing of a plain one."""
    scheme = scheme_for(form, MODELSLIM)
    if scheme is None:
        return {}
    said: dict[str, object] = {_KIND: KINDS[form], VERSION: "1.0.0"}
    if scheme.block[1]:
        said["group_size"] = scheme.block[1]
    for name in names:
        said[name] = KINDS[form] if name in quantized else _PLAIN
        if name in quantized:
            beside = (scheme.suffix, scheme.offset)
            said |= {f"{name}{suffix}": KINDS[form] for suffix in beside if suffix}
    return said


def said_in(folder: Path) -> Mapping[str, object]:
    """Return what a folder's description says.

    Raises:
        ValueError: There is none, or it is no JSON object.
    """
    return safety.read_json(folder / FILE)


def scheme_in(folder: Path) -> Scheme | None:
    """Return the scheme that a folder's description tells, `None` where there is none.

    Raises:
        ValueError: It is none that is read here.
    """
    if not (folder / FILE).exists():
        return None
    kind = said_in(folder).get(_KIND)
    for form, known in KINDS.items():
        if kind == known:
            return scheme_for(form, MODELSLIM)
    raise ValueError(
        f"{_KIND} of {str(folder / FILE)!r} is {kind!r}; {', '.join(KINDS.values())} are read here"
    )
