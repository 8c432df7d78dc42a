"""vLLM reads what is exported, on a CPU, and finds every token as likely as transformers does.

By hand: `make vllm`, or name the Python of another environment with vLLM by
ORCHESTRATOR_VLLM_PYTHON, and run `python -m pytest -m vllm tests/jobs/formats/test_vllm.py`. Sizes
are what vLLM's kernels on a CPU take: heads of 32 and more.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from jobs.engines import weights
from jobs.formats.folder import Folder
from tests.jobs.formats import vllm_scores, zoo
from tests.jobs.formats.models import convert

ROOT = Path(__file__).parents[3]
NAMED = os.environ.get("ORCHESTRATOR_VLLM_PYTHON", "")  # noqa: TID251 - where vLLM is
PYTHON = Path(NAMED or ROOT / ".venv-vllm/bin/python")
SECONDS = 1500.0
SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 128}
LATENT = {"q_lora_rank": 64, "kv_lora_rank": 64, "v_head_dim": 32}
KINDS: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "qwen3": {},
    "qwen3_moe": {**EXPERTS, "num_experts": 4, "norm_topk_prob": True},
    "deepseek_v3": {
        **EXPERTS,
        **LATENT,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 32,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "num_local_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
    },
    "gpt_oss": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "intermediate_size": 128,
        "sliding_window": 32,
    },
}
FORMATS = ("bf16", "int8")
# Experts in INT8 run on no CPU: what vLLM 0.32 says of them. (Those of gpt-oss stay in BF16.)
REFUSED = {f"{kind}-int8": "No Int8 MoE backend" for kind in ("qwen3_moe", "deepseek_v3")}
# What the parity gate allows BF16 beyond the noise of its arithmetic.
PARITY = yaml.safe_load((ROOT / "conf/job/parity.yaml").read_text())["params"]
ALLOWED: float = PARITY["allowances"]["bf16"]["kl_mean"]
PLANTED = "llama-int8-planted"
TOKENS = [[(i * 7 + j * 13) % 90 + 3 for j in range(40)] for i in range(2)]
# vLLM's own settings: no network, in this one process, its threads bound to no core.
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_MLA_DISABLE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}

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
        config = AutoConfig.for_model(kind, **{**SIZES, **sizes})
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
    order = {
        "folders": [str(place / name) for name in (*names, PLANTED)],
        "tokens": TOKENS,
        "vocabulary": SIZES["vocab_size"],
    }
    done = subprocess.run(
        [str(PYTHON), vllm_scores.__file__],
        input=json.dumps(order),
        env={**SETTINGS, "HOME": str(place), "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(vllm_scores.MARK)]
    told = [json.loads(line.removeprefix(vllm_scores.MARK)) for line in lines]
    assert len(told) == len(names) + 1, done.stderr[-3000:]
    return {Path(one["folder"]).name: one for one in told}


@torch.no_grad()
def divergence(folder: Path, answer: Mapping[str, Any], *, by_token: bool) -> float:
    """The mean KL divergence of what vLLM says from transformers, of the weights in `folder`.

    `by_token` quantizes what goes into the layers that are quantized, each token by itself, as
    vLLM does with a folder in INT8.
    """
    assert "refused" not in answer, answer
    model, source = weights.load(folder, torch.float32, "cpu"), Folder(folder)
    for name, module in model.named_modules():
        weight = f"{name}.weight"
        if by_token and weight in source.specs and source.is_quantized(weight):
            module.register_forward_pre_hook(in_eight_bits)
    ours = model(input_ids=torch.tensor(TOKENS)).logits.log_softmax(-1)[:, :-1]
    theirs = torch.tensor(answer["scores"])
    assert theirs.shape == ours.shape
    return float((ours.exp() * (ours - theirs)).sum(-1).mean())


def in_eight_bits(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    (values,) = inputs
    scale = values.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
    return ((values / scale).round() * scale,)


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
