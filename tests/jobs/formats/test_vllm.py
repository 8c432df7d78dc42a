"""vLLM reads what is exported, on a CPU, and finds every token as likely as transformers does.

By hand: `make vllm`, or name the Python of another environment with vLLM by
ORCHESTRATOR_VLLM_PYTHON, and run `python -m pytest -m vllm tests/jobs/formats/test_vllm.py`. Of
all types: `python -m tests.jobs.formats.readers vllm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.jobs.formats import zoo
from tests.jobs.formats.models import convert
from tests.jobs.formats.vllm_judge import ALLOWED, PYTHON, Vllm, divergence

SECONDS = 1500.0
KINDS: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "qwen3": {},
    "qwen3_moe": {"norm_topk_prob": True},
    "deepseek_v3": {"n_group": 2},
    "gpt_oss": {"sliding_window": 32},
}
FORMATS = ("bf16", "int8")
# Experts in INT8 run on no CPU: what vLLM 0.32 says of them. (Those of gpt-oss stay in BF16.)
REFUSED = {f"{kind}-int8": "No Int8 MoE backend" for kind in ("qwen3_moe", "deepseek_v3")}
PLANTED = "llama-int8-planted"

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(SECONDS + 100),
    pytest.mark.skipif(not PYTHON.exists(), reason=f"there is no {PYTHON}: make vllm"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: each kind in each format, and one with a fault."""
    place = tmp_path_factory.mktemp("models")
    for kind, sizes in KINDS.items():
        config = zoo.small(kind, {**zoo.WIDER, **sizes})
        source = zoo.save(config, place / kind, spread=0.15)
        for form in FORMATS:
            convert(source, place / f"{kind}-{form}", form)
    made = convert(place / "llama", place / PLANTED, "int8")
    stored = load_file(made / "model.safetensors")
    stored["model.layers.1.mlp.down_proj.weight_scale"][:16] *= 2
    save_file(stored, made / "model.safetensors", metadata={"format": "pt"})
    return place


@pytest.fixture(scope="module")
def answers(place: Path) -> dict[str, Any]:
    """What vLLM says of each folder, by its name."""
    names = [f"{kind}-{form}" for kind in KINDS for form in FORMATS]
    with Vllm(place, SECONDS / len(names)) as vllm:
        return {name: vllm.answer(place / name) for name in (*names, PLANTED)}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_vllm_finds_every_token_as_likely_as_transformers_or_says_what_it_lacks(
    kind: str, form: str, place: Path, answers: dict[str, Any]
) -> None:
    name = f"{kind}-{form}"
    if name in REFUSED:
        print(f"{name}: {answers[name].get('refused', 'read after all')}")
        assert REFUSED[name] in answers[name]["refused"]
        return
    found = divergence(place / name, answers[name], by_token=form == "int8")
    noise = divergence(place / name, answers[name], by_token=False)
    print(f"{name}: KL {found:.2e}, of the weights alone {noise:.2e}; {ALLOWED:.0e} is allowed")
    assert found < ALLOWED


def test_vllm_reads_the_scales_of_the_folder_and_no_others(
    place: Path, answers: dict[str, Any]
) -> None:
    other = divergence(place / "llama-int8", answers[PLANTED], by_token=True)
    print(f"with scales that were doubled: KL {other:.2e}")
    assert other > 20 * ALLOWED
    assert divergence(place / PLANTED, answers[PLANTED], by_token=True) < ALLOWED
