"""The two rates of the gate: honest exports that it refuses, and planted faults that it passes.

`pytest -m chaos -s` counts both over many seeds, on the CPU as it is, and with
`ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2` on one without BF16 arithmetic.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.jobs.parity import rates

# Of each model how many, times six formats, times two settings of the engine.
SEEDS = {"llama": 9, "qwen3_moe": 9, "wide": 3, "mixtral": 3, "deepseek_v3": 3}


def test_experts_are_judged_and_honest_exports_pass(tmp_path: Path) -> None:
    data = rates.prepared(tmp_path / "data", questions=48)
    model = rates.trained(tmp_path / "moe", data, "qwen3_moe", 0)
    for form, dtype in (("bf16", "bfloat16"), ("int8", "float32")):
        assert rates.verdict(model, model.exported(form), {"dtype": dtype}) == ""
        assert "| routers |" in (model.folder / "gate/output/parity.md").read_text()


@pytest.mark.parametrize("form", ["bf16", "int8"])
def test_each_planted_fault_is_caught(tmp_path: Path, form: str) -> None:
    data = rates.prepared(tmp_path / "data", questions=48)
    model = rates.trained(tmp_path / "model", data, "llama", 1)
    left_out = {*rates.NEEDS, *(rates.SCALED if form in rates.PLAIN else rates.BESIDE)}
    said = dict(rates.planted(model, form, left_out))
    assert len(said) == len(rates.FAULTS) - len(left_out)
    assert [name for name, why in said.items() if not why] == []


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_honest_exports_are_never_refused_and_faults_never_passed(tmp_path: Path) -> None:
    data = rates.prepared(tmp_path / "data", questions=48)
    refused: dict[str, str] = {}
    honest, passed, planted = 0, [], 0
    for seed in range(max(SEEDS.values())):
        for architecture in (name for name, seeds in SEEDS.items() if seed < seeds):
            folder = tmp_path / f"{architecture}-{seed}"
            model = rates.trained(folder, data, architecture, seed, steps=80 + 40 * (seed % 3))
            for name, why in rates.honest(model):
                honest += 1
                refused |= {name: why} if why else {}
            for form in ("bf16", rates.QUANTISED[seed % 4]):
                for name, why in rates.planted(model, form):
                    planted += 1
                    passed += [] if why else [name]
            print(f"{model.name}: {len(refused)}/{honest} refused, {len(passed)}/{planted} passed")
            print("\n".join([*(f"  {name}: {why}" for name, why in refused.items()), *passed]))
    print(f"\nCPU: {torch.backends.cpu.get_cpu_capability()}")
    print(f"honest exports refused: {len(refused)} of {honest}")
    print(f"planted faults passed: {len(passed)} of {planted}")
    assert (refused, passed) == ({}, [])
