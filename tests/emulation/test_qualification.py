"""Every gap that an emulated chip has is found by its qualification, and named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import wiring
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.spec.emulation import Emulation, Fault, FaultType
from orchestrator.core.spec.policy import Watch
from orchestrator.messages import Failed, LogLine
from tests.build import accelerator, documented, pool
from tests.clusters import request
from tests.emulation.interpreter import Interpreter
from tests.jobs.recipes import SMALL

GAPS = ("aten::silu", "aten::nll_loss_backward", "aten::_foreach_sqrt", "aten::cumsum")
NPU = accelerator(name="910C", vendor="Huawei", device="npu", backend="hccl")
ON_HOST = "aten::isin.Tensor_Tensor_out"


@pytest.fixture(scope="module")
def found(npu: Interpreter, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the qualification of a chip with gaps finds."""
    folder = tmp_path_factory.mktemp("gaps")
    code = f"""
install({GAPS!r}, [{ON_HOST!r}])
import json
from jobs.qualification.nodes import qualify_nodes
from tests.jobs.local_context import EMULATED, LocalContext
hardware = replace(EMULATED, device="npu:0", backend="hccl")
ctx = LocalContext(folder=Path({str(folder)!r}), hardware=hardware)
qualify_nodes(ctx, devices=2, model={SMALL!r}, quick=True)
install()
result = json.loads((ctx.output / "report.json").read_text())["findings"]
"""
    told: list[dict[str, Any]] = npu(code)
    return told


def of(found: list[dict[str, Any]], status: str) -> dict[str, dict[str, Any]]:
    return {one["subject"]: one for one in found if one["status"] == status}


def test_every_operator_that_is_missing_is_named(found: list[dict[str, Any]]) -> None:
    failed = of(found, "failed")
    assert {name for name in failed if name.startswith("aten::")} == set(GAPS)
    assert "missing: Could not run" in failed["aten::silu"]["note"]
    assert failed["aten::silu"]["note"].endswith("(in forward, generation)")
    assert failed["aten::nll_loss_backward"]["note"].endswith("(in backward)")
    assert failed["aten::_foreach_sqrt"]["note"].endswith("(in optimizer)")


def test_a_gap_refuses_only_the_roles_that_need_the_operator(found: list[dict[str, Any]]) -> None:
    failed = of(found, "failed")
    assert failed["aten::silu"]["roles"] == ["train", "serve"]
    assert failed["aten::nll_loss_backward"]["roles"] == ["train"]
    assert failed["aten::_foreach_sqrt"]["roles"] == ["train"]


def test_an_operator_that_the_host_does_is_a_limit(found: list[dict[str, Any]]) -> None:
    assert of(found, "limited")[ON_HOST]["note"] == "is done on the host, which costs time"


def test_a_chip_that_is_not_there_is_missed(found: list[dict[str, Any]]) -> None:
    note = of(found, "failed")["chips of a node"]["note"]
    assert note == "1 of 2: Ascend 910C (emulated)"


def test_the_other_checks_go_on(found: list[dict[str, Any]]) -> None:
    passed = of(found, "passed")
    assert {"npu:0", "float32 npu:0", "to npu:0"} <= passed.keys()


# --- faults -------------------------------------------------------------------------------------


def on_npu(folder: Path, **fault: Any) -> tuple[list[str], Failure | None]:
    """Do the same on a torch device of the chip's name: only the process that has it can."""
    return qualified(folder, device="npu", backend="hccl", **fault)


def qualified(
    folder: Path, *, device: str = "cpu", backend: str = "gloo", **fault: Any
) -> tuple[list[str], Failure | None]:
    """Check a chip that fails so; return what was found against it, and how the attempt ended."""
    known = Fault(**{**fault, "what": FaultType(fault["what"])})
    emulation = Emulation(device=device, backend=backend, faults=(known,))
    asked = replace(
        request("jobs.qualification.nodes.qualify_nodes", "nodes", model=SMALL, quick=True),
        packages=("jobs",),
        storage=folder.as_uri(),
        pool=pool("ascend", chip=NPU, emulation=emulation),
        watch=Watch(hang=1.0 if known.what is FaultType.HANG else None),
        signatures=documented(),
    )
    said = [m for batch in wiring.run_worker(asked, rank=0, rendezvous=None) for m in batch]
    lines = [m.text for m in said if isinstance(m, LogLine)]
    against = [line for line in lines if "  failed  " in line]
    return against, next((m.failure for m in said if isinstance(m, Failed)), None)


@pytest.mark.parametrize(
    ("step", "found"), [(1, "operators"), (4, "products"), (7, "reference")], ids=str
)
def test_a_product_that_is_no_number_is_found_by_the_check_it_falls_into(
    tmp_path: Path, step: int, found: str
) -> None:
    against, failure = qualified(tmp_path, what="nan", at_step=step)
    assert failure is None
    assert {line.split()[0] for line in against} == {found}


@pytest.mark.parametrize(
    ("fault", "found", "note"),
    [
        ({"what": "corrupt", "at_step": 4}, "products", "in row 0"),
        ({"what": "stuck", "at_step": 3}, "memory", "in bits 30"),
        (
            {"what": "raise", "at_step": 4, "text": "error code is 507015"},
            "products",
            "raises: RuntimeError: error code is 507015",
        ),
    ],
    ids=["rows tripled", "bit 30 stuck", "a product raises"],
)
def test_what_a_chip_does_wrongly_without_a_word_is_found(
    npu: Interpreter, tmp_path: Path, fault: dict[str, Any], found: str, note: str
) -> None:
    code = f"""
from orchestrator.messages import Failed
from tests.emulation.test_qualification import on_npu
lines, failure = on_npu(Path({str(tmp_path)!r}), **{fault!r})
install()
result = [lines, failure and str(failure)]
"""
    against, failure = npu(code)
    assert failure is None
    assert {line.split()[0] for line in against} == {found}
    assert note in against[0]


@pytest.mark.parametrize(
    ("signature", "kind"),
    [("npu_oom", FailureKind.OUT_OF_MEMORY), ("hbm_ecc", FailureKind.DEVICE_LOST)],
)
def test_an_error_of_the_chip_ends_the_attempt_by_its_kind(
    tmp_path: Path, signature: str, kind: FailureKind
) -> None:
    _, failure = qualified(tmp_path, what="raise", signature=signature, at_step=3)
    assert failure is not None
    assert (failure.kind, failure.step) == (kind, 3)


def test_a_chip_that_hangs_is_found(tmp_path: Path) -> None:
    _, failure = qualified(tmp_path, what="hang", at_step=1)
    assert failure is not None
    assert failure.kind is FailureKind.HANG
