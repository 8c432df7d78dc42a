"""An interpreter with an emulated device, sums to train on, and the chip of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.data import arithmetic
from tests.emulation.interpreter import Interpreter
from tests.jobs.local_context import LocalContext

SETUP = """
import contextlib
import io
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
from orchestrator.core.spec.hardware import Accelerator
from orchestrator.emulation import device
from orchestrator.emulation.hooks import hooks
CHIP = Accelerator(
    name="Ascend 910C", vendor="huawei", device="npu", backend="hccl", memory_gb=64)
def install(unsupported=(), on_host=()):
    device.install(CHIP, count=1, unsupported=unsupported, on_host=on_host)
install()
"""


@pytest.fixture(scope="session")
def npu() -> Iterator[Interpreter]:
    """Return an interpreter that has a torch device `npu`."""
    started = Interpreter(SETUP)
    yield started
    started.close()


@pytest.fixture(scope="session")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small data set of sums."""
    ctx = LocalContext(folder=tmp_path_factory.mktemp("sums"))
    arithmetic.prepare(ctx, draws=600, validation=0.1, test=0.1)
    return ctx.output
