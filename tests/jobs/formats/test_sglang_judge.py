"""SGLang's own readers take what is written for them.

They run where ORCHESTRATOR_SGLANG_PYTHON names the Python of an environment with SGLang 0.5.23,
beside torch, transformers and compressed-tensors; no GPU is asked for:

    pip install --no-deps sglang==0.5.23 triton einops orjson msgspec
    pip install --no-deps pybase64 pyzmq setproctitle partial-json-parser
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.jobs.formats import sglang_layers, zoo
from tests.jobs.formats.models import convert

PYTHON = os.environ.get("ORCHESTRATOR_SGLANG_PYTHON", "")  # noqa: TID251 - where it is
pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="ORCHESTRATOR_SGLANG_PYTHON names no Python"),
    pytest.mark.timeout(600),
]
FOLDERS = (
    ("fp8", "vllm", "Fp8LinearMethod"),
    ("fp8_ue8m0", "vllm", "Fp8LinearMethod"),
    ("mxfp8", "sglang", "Fp8LinearMethod"),
    ("int8", "vllm", "CompressedTensorsW8A8Int8"),
    ("int8", "ascend-modelslim", "ModelSlimW8A8Int8"),
    ("mxfp8", "ascend-modelslim", "ModelSlimMXFP8Scheme"),
)
EXPERTS = {
    "Fp8LinearMethod": "Fp8MoEMethod",
    "ModelSlimW8A8Int8": "ModelSlimW8A8Int8MoE",
    "ModelSlimMXFP8Scheme": "ModelSlimMXFP8MoEScheme",
    # as `dense` of conf/engine/sglang.yaml says
    "CompressedTensorsW8A8Int8": (
        "refused: The W8A8Int8 Fused MoE scheme is implemented only for NPU for now."
    ),
}
PLAIN = "UnquantizedLinearMethod"


def judged(folders: list[Path]) -> list[dict[str, Any]]:
    """Return what SGLang makes of each folder."""
    done = subprocess.run(
        [PYTHON, sglang_layers.__file__, *map(str, folders)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"layers"')]


@pytest.mark.parametrize("kind", ["qwen3_moe", "deepseek_v3", "llama"])
def test_every_layer_is_what_it_was_made_and_takes_the_tensors_that_are_stored(
    kind: str, tmp_path: Path
) -> None:
    source = zoo.save(zoo.small(kind, zoo.WIDER), tmp_path / "source")
    folders = [
        convert(source, tmp_path / f"{form}-{dialect}", form, dialect=dialect)
        for form, dialect, _ in FOLDERS
    ]
    for folder, (*_, method), made in zip(folders, FOLDERS, judged(folders), strict=True):
        stored = load_file(folder / "model.safetensors")
        kinds = {name: layer["kind"] for name, layer in made["layers"].items()}
        wrong = {name: layer["wrong"] for name, layer in made["layers"].items() if layer["wrong"]}
        codes = {name: stored[f"{name}.weight"].itemsize == 1 for name in kinds}
        assert kinds == {name: method if coded else PLAIN for name, coded in codes.items()}
        assert wrong == {}
        assert made["fused"] == {name: kinds[name] for name in made["fused"]}
        assert set(made["experts"].values()) <= {EXPERTS[method]}
        assert bool(made["experts"]) == (kind != "llama")


def test_a_layer_whose_scales_are_of_another_shape_is_refused(tmp_path: Path) -> None:
    source = zoo.save(zoo.small("llama", zoo.WIDER), tmp_path / "source")
    folder = convert(source, tmp_path / "made", "fp8", dialect="vllm")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["weight_block_size"] = [64, 64]
    (folder / "config.json").write_text(json.dumps(config))
    (made,) = judged([folder])
    assert made["layers"]["model.layers.0.self_attn.o_proj"]["wrong"]
