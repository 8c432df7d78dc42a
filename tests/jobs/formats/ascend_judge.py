"""vllm-ascend's own rules of what a layer of a folder in its dialect is, without its hardware.

Of its package the functions that read ModelSlim's description, and those that say which tensors a
layer has, are taken out of their files as they stand: all else there imports torch_npu. The folder
of the package is where ORCHESTRATOR_VLLM_ASCEND says; there it comes by

    pip download --no-deps vllm-ascend==0.23.0 && unzip vllm_ascend-*.whl 'vllm_ascend/*'
"""

from __future__ import annotations

import ast
import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch

FOLDER = os.environ.get("ORCHESTRATOR_VLLM_ASCEND", "")  # noqa: TID251 - where it is unpacked
_CLASSES = {
    "W8A8_DYNAMIC": ("w8a8_dynamic.py", "AscendW8A8DynamicLinearMethod"),
    "W8A8_MXFP8": ("w8a8_mxfp8.py", "AscendW8A8MXFP8DynamicLinearMethod"),
}
_SHAPES = ("get_weight", "get_perchannel_param", "get_pergroup_param")


class AscendReader:
    """What vllm-ascend makes of a description."""

    def __init__(self, description: Mapping[str, Any], kind: str) -> None:
        """Read `description` of a model of type `kind`."""
        tree = _parsed("modelslim_config.py")
        rules = ("get_linear_quant_type", "packed_modules_model_mapping")
        skipped = _method(tree, "AscendModelSlimConfig", "is_layer_skipped_ascend")
        self._own = _run([*_named(tree, rules), skipped])
        self._description = dict(description)
        self.packed: Mapping[str, list[str]] = self._own["packed_modules_model_mapping"][kind]

    def kind_of(self, layer: str) -> str:
        """Return what a linear layer is, by its name in vLLM; errors are vllm-ascend's."""
        holder = SimpleNamespace(quant_description=self._description)
        if self._own["is_layer_skipped_ascend"](holder, layer, self.packed):
            return "FLOAT"
        kind: str = self._own["get_linear_quant_type"](self._description, layer, self.packed)
        return kind

    def tensors_of(self, kind: str, rows: int, columns: int) -> Mapping[str, torch.Tensor]:
        """Return the tensors that a linear layer of a kind is made with."""
        file, name = _CLASSES[kind]
        tree = _parsed(f"methods/{file}")
        holder = SimpleNamespace(group_size=self._description.get("group_size", 32))
        made: dict[str, torch.Tensor] = {}
        for shape in _SHAPES:
            method = _method(tree, name, shape)
            if method is None:
                continue
            sizes = (rows,) if shape == "get_perchannel_param" else (columns, rows)
            made |= _run([method])[shape](holder, *sizes, torch.float32)
        return made


def _parsed(file: str) -> ast.Module:
    return ast.parse(Path(FOLDER, "vllm_ascend/quantization", file).read_text("utf-8"))


def _named(tree: ast.Module, names: Iterable[str]) -> list[ast.stmt]:
    return [
        node
        for node in tree.body
        if (isinstance(node, ast.FunctionDef) and node.name in names)
        or (isinstance(node, ast.AnnAssign) and ast.unparse(node.target) in names)
    ]


def _method(tree: ast.Module, of: str, name: str) -> ast.stmt | None:
    nodes = (
        inner
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == of
        for inner in node.body
    )
    return next((n for n in nodes if isinstance(n, ast.FunctionDef) and n.name == name), None)


def _run(nodes: Iterable[ast.stmt | None]) -> dict[str, Any]:
    """Return what foreign statements define."""
    names: dict[str, Any] = {
        "Any": Any,
        "Mapping": Mapping,
        "MappingProxyType": MappingProxyType,
        "cdiv": lambda size, by: math.ceil(size / by),
        "logger": logging.getLogger(__name__),
        "torch": torch,
    }
    module = ast.Module([node for node in nodes if node is not None], [])
    exec(compile(module, "vllm_ascend", "exec"), names)  # noqa: S102 - the package that judges
    return names
