"""The checks of single chips, on a plain CPU: there, all is well but what is planted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.qualification.bench import FAILED, Bench
from jobs.qualification.chips import check_memory
from jobs.qualification.codes import check_codes, check_product
from jobs.qualification.nodes import qualify_nodes
from jobs.qualification.products import check_products, compare
from orchestrator.emulation.hooks import hooks
from orchestrator.emulation.host import watch_products
from tests.jobs.local_context import EMULATED, LocalContext
from tests.jobs.recipes import SMALL

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> LocalContext:
    ctx = LocalContext(folder=tmp_path_factory.mktemp("nodes"))
    qualify_nodes(ctx, model=SMALL, formats=["fp8", "int8", "bf16"], quick=True)
    return ctx


def findings(ctx: LocalContext) -> dict[tuple[str, str], dict[str, Any]]:
    told = json.loads((ctx.output / "report.json").read_text())
    return {(one["check"], one["subject"]): one for one in told["findings"]}


def test_a_host_that_works_has_no_flaw(checked: LocalContext) -> None:
    found = findings(checked)
    assert {one["status"] for one in found.values()} == {"passed", "skipped"}
    assert found["operators", "model"]["figure"] > 40
    assert found["devices", "chips of a node"]["note"].startswith("there is no chip to count")
    checks = {check for check, _ in found}
    assert {"memory", "products", "product rate", "bandwidth", "reference"} <= checks


def test_each_check_leaves_a_sign_of_life(checked: LocalContext) -> None:
    steps = [step for step, _ in checked.points]
    assert steps == sorted(steps)
    assert len(set(steps)) >= 6


def test_memory_that_forgets_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(LocalContext(folder=tmp_path))
    whole = torch.arange

    def leaky(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = whole(*args, **kwargs)
        if len(args) == 2:
            made[7] = -1
            monkeypatch.setattr(torch, "arange", whole)
        return made

    monkeypatch.setattr(torch, "arange", leaky)
    check_memory(bench, CPU)
    assert [(one.status, one.note) for one in bench.found] == [
        (FAILED, "1 of 1 blocks read otherwise than they were written")
    ]


def test_memory_that_is_not_there_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("NPU out of memory. Tried to allocate 22.00 MiB")

    bench = Bench(LocalContext(folder=tmp_path))
    monkeypatch.setattr(torch, "arange", full)
    check_memory(bench, CPU)
    assert bench.found[0].status == FAILED
    assert bench.found[0].note == "0.0 GB could be had of 0.0 GB said to be free"


def test_a_product_that_is_wrong_is_found(tmp_path: Path) -> None:
    bench = Bench(LocalContext(folder=tmp_path))
    hooks.after = lambda out: out if out.dtype is torch.float64 else out.mul_(1.5)
    undo = watch_products()
    check_products(bench, CPU)
    undo()
    hooks.clear()
    bad = [one.subject for one in bench.found if one.status == FAILED]
    assert bad == ["float32 cpu", "float16 cpu", "bfloat16 cpu"]


def test_products_of_codes_are_checked_and_a_wrong_one_is_found(
    checked: LocalContext, tmp_path: Path
) -> None:
    right = findings(checked)
    assert right["products", "int8 cpu"]["figure"] == 0.0
    assert 0.0 < right["products", "float8_e4m3fn cpu"]["figure"] < 1e-2
    bench = Bench(LocalContext(folder=tmp_path))
    check_product(bench, CPU, "int8", lambda left, right: torch._int_mm(left, right) + 1)
    assert [(one.subject, one.status, one.roles) for one in bench.found] == [
        ("int8 cpu", FAILED, ("serve",))
    ]


def test_the_codes_that_are_multiplied_are_those_of_the_format(tmp_path: Path) -> None:
    bench = Bench(LocalContext(folder=tmp_path))
    check_codes(bench, CPU, ("bf16", "fp8_fnuz", "hif8"))
    assert [one.subject for one in bench.found] == ["float8_e4m3fnuz cpu"]


def test_a_product_that_torch_lacks_is_told_and_is_no_flaw(tmp_path: Path) -> None:
    def lacking(*_: object) -> torch.Tensor:
        raise NotImplementedError("Could not run 'aten::_int_mm'")

    bench = Bench(LocalContext(folder=tmp_path))
    check_product(bench, CPU, "int8", lacking)
    assert [one.status for one in bench.found] == ["skipped"]
    assert bench.found[0].note.startswith("torch has no such product here: NotImpl")


def test_only_a_real_chip_is_held_against_what_is_published(tmp_path: Path) -> None:
    emulated = Bench(LocalContext(folder=tmp_path))
    compare(emulated, "product rate", 1.0, 989.0, "TFLOP/s", least=0.5)
    assert emulated.found == []
    hardware = replace(EMULATED, emulated=False, device="cuda:0")
    real = Bench(LocalContext(folder=tmp_path, hardware=hardware))
    compare(real, "product rate", 100.0, 989.0, "TFLOP/s", least=0.5)
    assert real.found[0].note == "100 TFLOP/s of 989 TFLOP/s that are published"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_real_device_qualifies(tmp_path: Path) -> None:
    name = torch.cuda.get_device_name(0)
    hardware = replace(EMULATED, device="cuda:0", emulated=False, accelerator=name)
    ctx = LocalContext(folder=tmp_path, hardware=hardware)
    qualify_nodes(ctx, devices=torch.cuda.device_count(), quick=True)
    print("\n".join(ctx.lines))
    assert not [one for one in findings(ctx).values() if one["status"] == FAILED]
