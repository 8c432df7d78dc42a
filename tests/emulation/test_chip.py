"""How faults come out where there is a plain CPU device: no operator, no collective to ask."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from orchestrator.core.spec.emulation import Emulation, Fault, FaultType
from orchestrator.core.spec.stages import Needs
from orchestrator.emulation import emulated_chip
from orchestrator.emulation.chip import EmulatedChip, Outlets
from orchestrator.emulation.fault_schedule import AttemptRank, FaultSchedule
from orchestrator.emulation.hooks import hooks
from tests.build import accelerator, pool
from tests.clusters import request
from tests.fakes import FakeClock

NPU = accelerator(name="910C", vendor="Huawei", device="npu", backend="hccl")
HERE = Outlets(device=False, collectives=False)


class Waits(threading.Event):
    """Notes how long somebody wanted to wait, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.asked.append(timeout)
        return True


@pytest.fixture(autouse=True)
def nothing_due() -> Iterator[None]:
    yield
    hooks.clear()


def chip(
    what: str, waits: Waits | None = None, outlets: Outlets = HERE, **facts: Any
) -> EmulatedChip:
    fault = Fault(what=FaultType(what), **{"at_step": 3, **facts})
    schedule = FaultSchedule([fault], AttemptRank(stage="train", attempt=1, rank=1))
    return EmulatedChip(schedule, outlets, 1, FakeClock(1_700_000_000), waits or Waits())


def test_an_error_comes_out_of_the_call_that_names_the_step() -> None:
    one = chip("raise", signature="hccl_timeout")
    one.reached(2)
    with pytest.raises(RuntimeError, match=r"EI0002: .* Notify register times out") as caught:
        one.reached(3)
    assert "2023-11-14-22:13:20 (PID:" in str(caught.value)
    assert "RankID:1) ERR02005 DIST internal error" in str(caught.value)
    one.reached(4)


def test_a_step_that_is_named_twice_counts_once() -> None:
    one = chip("raise", text="broken", at_step=None, rate=0.999)
    with pytest.raises(RuntimeError):
        one.reached(1)
    one.reached(1)


def test_an_error_of_ones_own_is_told_as_it_is_written() -> None:
    with pytest.raises(RuntimeError, match=r"^my own words$"):
        chip("raise", text="my own words").reached(3)


def test_a_job_that_goes_on_from_a_later_checkpoint_meets_no_fault() -> None:
    one = chip("raise", text="broken")
    one.resumed(3)
    one.reached(4)


def test_what_hangs_waits_until_it_is_told_to_end() -> None:
    waits = Waits()
    chip("hang", waits).reached(3)
    assert waits.asked == [None]


def test_what_is_slow_waits_in_proportion_for_so_many_steps() -> None:
    waits = Waits()
    one = chip("slow", waits, factor=3.0, steps=2)
    for step in range(1, 8):
        one.reached(step)
    assert len(waits.asked) == 2
    assert all(asked is not None and asked >= 0 for asked in waits.asked)


def test_delayed_collectives_delay_the_step_where_there_are_none_to_ask() -> None:
    waits = Waits()
    one = chip("delay", waits, seconds=0.5, steps=2)
    for step in range(1, 8):
        one.reached(step)
    assert waits.asked == [0.5, 0.5]


def test_delayed_collectives_are_delayed_themselves_where_there_are_some() -> None:
    waits = Waits()
    one = chip("delay", waits, Outlets(device=False, collectives=True), seconds=0.5, steps=2)
    one.reached(3)
    assert hooks.collective is not None
    hooks.collective()
    hooks.collective()
    one.reached(4)
    assert hooks.collective is not None
    one.reached(5)
    assert hooks.collective is None
    assert waits.asked == [0.5, 0.5]


def test_a_dropped_collective_is_noticed_after_its_time() -> None:
    waits = Waits()
    one = chip(
        "drop",
        waits,
        Outlets(device=False, collectives=True),
        seconds=60.0,
        signature="nccl_watchdog",
    )
    one.reached(3)
    assert hooks.collective is not None
    with pytest.raises(RuntimeError, match="Watchdog caught collective operation timeout"):
        hooks.collective()
    assert waits.asked == [60.0]
    assert hooks.collective is None


def test_an_error_comes_out_of_the_next_operator_of_an_emulated_device() -> None:
    one = chip("raise", outlets=Outlets(device=True, collectives=False), signature="npu_oom")
    one.reached(3)
    assert hooks.before is not None
    with pytest.raises(RuntimeError, match=r"^NPU out of memory"):
        hooks.before()
    assert hooks.before is None


def test_a_poisoned_product_makes_a_loss_that_is_no_number() -> None:
    weight = torch.ones(2, 2, requires_grad=True)
    one = chip("nan")
    one.reached(2)
    assert torch.isfinite(weight @ weight).all()
    one.reached(3)
    loss = (weight @ weight).exp().sum()
    assert torch.isnan(loss)
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert torch.isnan(weight.grad).any()
    one.reached(4)
    assert torch.isfinite(torch.ones(2, 2) @ torch.ones(2, 2)).all()


def test_a_chip_that_is_let_go_lets_nothing_come() -> None:
    one = chip("nan")
    one.reached(3)
    one.end()
    assert torch.isfinite(torch.ones(2, 2) @ torch.ones(2, 2)).all()
    assert hooks.after is None


def test_what_dies_is_killed() -> None:
    code = "import threading; from tests.emulation.test_chip import chip; chip('die').reached(3)"
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=100)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("name", "kind"), [("OSError", OSError), ("VendorPanic", Exception), ("print", Exception)]
)
def test_an_error_has_any_type_and_words(name: str, kind: type[Exception]) -> None:
    one = chip("raise", error=name, text="unit 7 said 0x5b")
    with pytest.raises(kind, match=r"^unit 7 said 0x5b$") as caught:
        one.reached(3)
    assert type(caught.value).__name__ == name


@pytest.mark.parametrize(
    ("facts", "code", "said"),
    [
        ("'print', text='odd: 0x5b'", 0, "odd: 0x5b\n"),
        ("'abort', text='odd: 0x5b'", -signal.SIGABRT, "odd: 0x5b\n"),
        ("'abort'", -signal.SIGABRT, ""),
        ("'exit', text='odd: 0x5b', code=77", 77, "odd: 0x5b\n"),
        ("'exit'", 1, ""),
    ],
)
def test_native_code_writes_and_ends_past_all_handlers(facts: str, code: int, said: str) -> None:
    code_of = f"""
import atexit, sys
from tests.emulation.test_chip import chip
sys.stderr = None
atexit.register(print, "a handler")
try:
    chip({facts}).reached(3)
except BaseException:
    print("an exception")
"""
    done = subprocess.run(
        [sys.executable, "-c", code_of], check=False, timeout=100, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (code, said)
    assert done.stdout == ("" if code else "a handler\n")


def test_a_fault_at_step_nought_comes_before_the_job_begins() -> None:
    faults = (Fault(what=FaultType.RAISE, text="no link", at_step=0),)
    on = pool("ascend", chip=NPU, emulation=Emulation(faults=faults))
    with (
        pytest.raises(RuntimeError, match="no link"),
        emulated_chip(request("j", "s", on=on), 0, clock=FakeClock(), stop=Waits()),
    ):
        pass


def test_work_on_the_host_meets_no_fault_of_the_chip() -> None:
    faults = (Fault(what=FaultType.RAISE, text="no link", at_step=0),)
    on = pool("ascend", chip=NPU, emulation=Emulation(device="npu", faults=faults))
    asked = request("j", "s", on=on, needs=Needs(devices=0))
    with emulated_chip(asked, 0, clock=FakeClock(), stop=Waits()) as held:
        held.reached(1)
    assert not hasattr(torch, "npu")
