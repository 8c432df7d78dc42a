"""vllm-ascend's own code reads what is written for it.

It runs where ORCHESTRATOR_VLLM_ASCEND names its package, unpacked: `ascend_judge.py` says how.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from jobs.formats import modelslim
from tests.jobs.formats import zoo
from tests.jobs.formats.ascend_judge import FOLDER, AscendReader
from tests.jobs.formats.models import convert

pytestmark = pytest.mark.skipif(not FOLDER, reason="ORCHESTRATOR_VLLM_ASCEND names no folder")
KINDS = ("qwen3_moe", "deepseek_v3", "glm4_moe")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", modelslim.KINDS)
def test_every_layer_is_what_it_was_made_and_has_the_tensors_that_are_stored(
    kind: str, form: str, tmp_path: Path
) -> None:
    source = zoo.save(zoo.small(kind, zoo.WIDER), tmp_path / "source")
    folder = convert(source, tmp_path / "made", form, dialect="ascend-modelslim")
    described = json.loads((folder / modelslim.FILE).read_text("utf-8"))
    stored = load_file(folder / "model.safetensors")
    reader = AscendReader(described, kind)
    kinds = set()
    for name, weight in stored.items():
        if not name.endswith(".weight") or weight.ndim != 2 or "embed" in name:
            continue
        layer = name.removesuffix(".weight")
        made = reader.kind_of(layer)
        kinds.add(made)
        assert made == (described[name] if weight.itemsize == 1 else "FLOAT")
        if made != "FLOAT":
            for suffix, wanted in reader.tensors_of(made, *weight.shape).items():
                tensor = stored[f"{layer}.{suffix}"]
                assert tensor.shape == wanted.shape
                assert tensor.dtype == wanted.dtype
        last = layer.rpartition(".")[2]
        for fused, parts in reader.packed.items():
            whole = last == parts[0] and all(
                f"{layer.removesuffix(last)}{part}.weight" in stored for part in parts
            )
            if whole:
                assert reader.kind_of(f"{layer.removesuffix(last)}{fused}") == made
    assert kinds == {"FLOAT", modelslim.KINDS[form]}
    for layer in {name.partition(".mlp.experts.")[0] for name in stored if ".experts." in name}:
        assert reader.kind_of(f"{layer}.mlp.experts") == modelslim.KINDS[form]
