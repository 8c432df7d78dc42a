"""CPU time of work on an emulated device, against the plain CPU, which does the same arithmetic.

The real training job, and an optimizer step of larger layers. Each in a process of its own, for a
device is given its name once a process; in turns, and the quickest of each counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

from tests.benchmarks.table import Row, compare

ROOT = Path(__file__).parents[2]
ROUNDS = 3
UNIT, GOAL = "CPU s", "ratio <= 3"
WIDTHS = (256, 1024)
STEPS = 40
PARAMS = {"steps": STEPS, "batch_size": 64, "log_every": 5}
PARAMS |= {"validate_every": 0, "checkpoint_every": 0}


def rows() -> list[Row]:
    """Measure both devices in turns."""
    with TemporaryDirectory(prefix="bench-") as folder:
        _prepare(Path(folder))
        both = [[_measure(device, folder) for _ in range(ROUNDS)] for device in ("npu", "cpu")]
    ours, theirs = ({name: min(r[name] for r in rounds) for name in rounds[0]} for rounds in both)
    return [
        compare(f"{name}, emulated device", ours[name], theirs[name], unit=UNIT, goal=GOAL)
        for name in ours
    ]


def _prepare(folder: Path) -> None:
    from jobs.data import arithmetic
    from tests.jobs.local_context import LocalContext

    arithmetic.prepare(LocalContext(folder=folder), draws=2000)


def _measure(device: str, folder: str) -> dict[str, float]:
    words = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.bench_emulation"]
    done = subprocess.run(
        [*words, device, folder], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(device: str, folder: str) -> None:
    """Measure one device in this process; print seconds of CPU time by what was done."""
    import torch

    from orchestrator.core.spec.emulation import Emulation
    from orchestrator.core.spec.hardware import Accelerator, Pool
    from orchestrator.core.spec.stages import Needs
    from orchestrator.emulation import provide

    torch.set_num_threads(1)
    chip = Accelerator(name="Ascend 910C", vendor="huawei", device="npu", backend="hccl")
    provide(Pool(name="p", accelerator=chip, emulation=Emulation(device=device)), Needs())
    found = {f"layers of {width}, a step": _layers(torch, device, width) for width in WIDTHS}
    found["pretraining, a step"] = _pretraining(device, Path(folder))
    print(json.dumps(found))


def _layers(torch: Any, device: str, width: int) -> float:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(width, 8, 4 * width, 0.0, batch_first=True)
    net = layer.to(device)
    optimizer = torch.optim.AdamW(net.parameters(), fused=False)
    batch = torch.randn(8, 64, width).to(device)

    def step() -> None:
        net(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    spent = []
    for _ in range(10):
        began = process_time()
        step()
        spent.append(process_time() - began)
    return min(spent)


def _pretraining(device: str, folder: Path) -> float:
    """Return the quickest of the windows of steps, by the CPU time at which each was told."""
    from dataclasses import replace

    from jobs.pretraining import pretrain
    from tests.jobs.local_context import EMULATED, LocalContext

    class Timed(LocalContext):
        told: list[float]

        def metrics(self, values: Any, *, step: int) -> None:
            if "train/loss" in values:
                self.told.append(process_time())

    on = device if device == "cpu" else f"{device}:0"
    data = {"data": folder / "output"}
    ctx = Timed(folder=folder / device, inputs=data, hardware=replace(EMULATED, device=on))
    ctx.told = []
    pretrain(ctx, **PARAMS)
    windows = [later - earlier for earlier, later in zip(ctx.told, ctx.told[1:], strict=False)]
    return min(windows) / PARAMS["log_every"]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
