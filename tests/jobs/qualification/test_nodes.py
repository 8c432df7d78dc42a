"""The checks of single chips, on a plain CPU: there, all is well but what is planted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.qualification.bench import FAILED, Bench
from jobs.qualification.host_reference import qualify_reference
from jobs.qualification.nodes import qualify_nodes
from jobs.qualification.products import compare
from tests.jobs.local_context import EMULATED, LocalContext
from tests.jobs.recipes import SMALL

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> LocalContext:
    host = LocalContext(folder=tmp_path_factory.mktemp("host"))
    qualify_reference(host, model=SMALL, roles=["serve"])
    folder, given = tmp_path_factory.mktemp("nodes"), {"reference": host.output}
    ctx = LocalContext(folder=folder, inputs=given)
    formats = ["fp8", "int8", "bf16"]
    qualify_nodes(ctx, model=SMALL, roles=["serve"], formats=formats, soak_seconds=0.2, quick=True)
    return ctx


def findings(ctx: LocalContext) -> dict[tuple[str, str], dict[str, Any]]:
    told = json.loads((ctx.output / "report.json").read_text())
    return {(one["check"], one["subject"]): one for one in told["findings"]}


def test_a_host_that_works_has_no_flaw(checked: LocalContext) -> None:
    found = findings(checked)
    assert {one["status"] for one in found.values()} == {"passed", "skipped"}
    assert found["operators", "model"]["figure"] > 25
    assert found["devices", "chips of a node"]["note"].startswith("there is no chip to count")
    checks = {check for check, _ in found}
    assert {"memory", "products", "product rate", "bandwidth", "attention", "soak"} <= checks
    compared = {
        subject: one["status"] for (check, subject), one in found.items() if check == "reference"
    }
    assert compared == {"logits float32": "passed", "logits bfloat16": "passed"}


def test_each_check_leaves_a_sign_of_life(checked: LocalContext) -> None:
    steps = [step for step, _ in checked.points]
    assert steps == sorted(steps)
    assert len(set(steps)) >= 6


def test_only_a_real_chip_is_held_against_what_is_published(tmp_path: Path) -> None:
    emulated = Bench(LocalContext(folder=tmp_path))
    compare(emulated, "product rate", 1.0, 989.0, "TFLOP/s", least=0.5)
    assert emulated.findings == []
    hardware = replace(EMULATED, emulated=False, device="cuda:0")
    real = Bench(LocalContext(folder=tmp_path, hardware=hardware))
    compare(real, "product rate", 100.0, 989.0, "TFLOP/s", least=0.5)
    assert real.findings[0].note == "100 TFLOP/s of 989 TFLOP/s that are published"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_real_device_qualifies(tmp_path: Path) -> None:
    name = torch.cuda.get_device_name(0)
    hardware = replace(EMULATED, device="cuda:0", emulated=False, accelerator=name)
    ctx = LocalContext(folder=tmp_path, hardware=hardware)
    qualify_nodes(ctx, devices=torch.cuda.device_count(), quick=True)
    print("\n".join(ctx.lines))
    assert not [one for one in findings(ctx).values() if one["status"] == FAILED]
