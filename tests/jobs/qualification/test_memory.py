"""Memory: what is not kept is found, to the bit; what is not there too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jobs.qualification import memory
from jobs.qualification.bench import FAILED, LIMITED, PASSED, Bench
from orchestrator.core.spec.emulation import FaultType
from orchestrator.emulation import silent
from orchestrator.emulation.hooks import hooks
from tests.jobs.local_context import EMULATED, LocalContext

CPU = torch.device("cpu")
REAL = replace(EMULATED, emulated=False, device="meta")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(LocalContext(folder=tmp_path), quick=True)


def test_sound_memory_keeps_all(bench: Bench) -> None:
    memory.check_memory(bench, CPU)
    [one] = bench.findings
    assert (one.status, one.figure) == (PASSED, pytest.approx(0.0168, abs=1e-4))


def test_a_bit_that_is_stuck_is_found_and_named(bench: Bench) -> None:
    silent.begin(FaultType.STUCK)
    undo = silent.on_host()
    memory.check_memory(bench, CPU)
    undo()
    hooks.clear()
    [one] = bench.findings
    assert one.status == FAILED
    assert one.note.endswith("words of part 0 read otherwise than written, in bits 30")


def test_two_addresses_that_mean_one_place_are_found() -> None:
    block = torch.empty(memory._PART, dtype=torch.int32)
    said = memory._kept([block, block], seed=1, passes=2)
    assert said.startswith("4194304 words of part 0 read otherwise")


def full(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a device of `after` bytes have no more."""
    left, made = [after], torch.empty

    def empty(count: int, **facts: object) -> torch.Tensor:
        if count * 4 > left[0]:
            raise RuntimeError("NPU out of memory. Tried to allocate 256.00 MiB")
        left[0] -= count * 4
        return made(1, dtype=torch.int32).expand(count)

    monkeypatch.setattr(torch, "empty", empty)


def test_blocks_shrink_until_little_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 3 * memory._LARGEST + memory._LARGEST // 2 + (1 << 20)
    full(size, monkeypatch)
    held = sum(block.numel() * 4 for block in memory._blocks(2 * size, CPU))
    assert held > 0.95 * size


def test_what_is_not_told_is_a_limit_and_what_is_not_there_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, total = int(80e9), int(81e9)
    found = {}
    for name, room in (("told", memory.Room(total, total)), ("silent", memory.Room(None, None))):
        bench = Bench(LocalContext(folder=tmp_path / name, hardware=REAL), quick=True)
        with monkeypatch.context() as patched:
            full(published // 2, patched)  # whose blocks are views, which take no words
            memory.check_memory(bench, CPU, room, kept=lambda _blocks, **_how: "")
        found[name] = [(one.subject, one.status) for one in bench.findings]
    assert found == {
        "told": [("cpu", FAILED)],
        "silent": [("cpu", LIMITED), ("size cpu", LIMITED)],
    }
