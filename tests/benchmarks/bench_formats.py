"""Weights to codes and back, against copying them, and against plain torch tensor by tensor.

Rates are bytes of the weights a second of CPU time, for two threads that work beside each other on
the same tensors: what else runs on the machine does not count. Each way takes its turn, and the
best turn counts. A copy goes into memory that is there; the others make their own. Then a whole
folder is converted, by a process of its own, whose peak of memory is told, and what was hashed
while it was written is stored, against hashing it then.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from time import thread_time
from typing import Any

from tests.benchmarks.table import Row

ROUNDS, TENSORS, ROWS, COLUMNS, THREADS = 5, 16, 1024, 2048, 2
GIGA = 1e9
WORK = Callable[[int], object]
CONVERT = r"""
import re, sys, time
from pathlib import Path
import torch
from jobs.formats.choice import QuantizationChoice
from jobs.formats.conversion import Conversion
from jobs.formats.folder import Folder
from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.core.artifact import FileEntry, Hashed
source, target = map(Path, sys.argv[1:])
folder = Folder(source)
choice = QuantizationChoice(frozenset(folder.specs), ())

def held(what):
    status = Path("/proc/self/status").read_text()
    return int(re.search(what + r":\s+(\d+)", status)[1]) / 1024

Path("/proc/self/clear_refs").write_text("5")
before = held("VmRSS")
began = time.perf_counter()
conversion = Conversion(source=folder, form="fp8_ue8m0", choice=choice, threads=2)
written = conversion.run(target)
took = time.perf_counter() - began
peak = held("VmHWM") - before

def read():
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])

def stored(name, hashed):
    made = store.scratch(name)
    conversion.run(made)
    stats = {path: (made / path).stat() for path in hashed}
    entries = {
        path: Hashed(FileEntry(one.st_size, hashed[path]), one.st_mtime_ns)
        for path, one in stats.items()
    }
    began, before = time.perf_counter(), read()
    store.commit(made, name, {}, entries)
    return time.perf_counter() - began, read() - before

store = FsspecArtifactStore(str(target / "store"))
again, all_of_it = stored("again", {})
known, little = stored("known", written.hashes)
print(took, peak, known, again, little, all_of_it)
"""


def rows() -> list[Row]:
    """Measure each format, from float32 and bfloat16, then a folder."""
    import torch

    found: list[Row] = []
    for dtype in (torch.float32, torch.bfloat16):
        for form in ("fp8_ue8m0", "fp8", "int8"):
            found += _both_ways(form, dtype)
    return [*found, *_folder()]


def _both_ways(form: str, dtype: Any) -> list[Row]:
    import torch

    from jobs.formats.blocks import dequantise, quantise
    from jobs.formats.schemes import SCHEMES

    scheme = SCHEMES[form]
    made = torch.randn(TENSORS, ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)) / 50
    weights = made.to(dtype)
    room = torch.empty_like(weights)
    coded = [quantise(weight, scheme) for weight in weights]
    codes, scales = [c for c, _ in coded], [s for _, s in coded if s is not None]
    ways: dict[str, WORK] = {
        "copy": lambda i: room[i].copy_(weights[i]),
        "quantise": lambda i: quantise(weights[i], scheme),
        "plain": lambda i: _plain(weights[i], scheme),
        "dequantise": lambda i: dequantise(codes[i], scales[i], scheme, dtype),
        "plain back": lambda i: _plain_back(codes[i], scales[i], scheme, dtype),
    }
    rate = _rates(ways, weights.nbytes)
    kind = str(dtype).removeprefix("torch.")
    return [
        _row(f"quantise {kind} to {form}, against a copy", rate["quantise"], rate["copy"]),
        _row(f"  against plain torch, {kind}", rate["quantise"], rate["plain"], ">= 1"),
        _row(f"dequantise {form} to {kind}, against a copy", rate["dequantise"], rate["copy"]),
        _row(f"  against plain torch, {kind}", rate["dequantise"], rate["plain back"], ">= 1"),
    ]


def _row(name: str, ours: float, theirs: float, goal: str = ">= 0.5") -> Row:
    ratio = ours / theirs
    return Row(name=name, ours=ours, theirs=theirs, unit="GB/s", ratio=ratio, goal=f"ratio {goal}")


def _rates(ways: dict[str, WORK], size: int) -> dict[str, float]:
    """Return the best rate of each way, GB/s."""
    import torch

    def timed(way: WORK, index: int) -> float:
        began = thread_time()
        way(index)
        return thread_time() - began

    best = dict.fromkeys(ways, float("inf"))
    with ThreadPoolExecutor(THREADS, initializer=lambda: torch.set_num_threads(1)) as pool:
        for _ in range(ROUNDS):
            for name, way in ways.items():
                spent = sum(pool.map(timed, [way] * TENSORS, range(TENSORS)))
                best[name] = min(best[name], spent / THREADS)
    return {name: size / seconds / GIGA for name, seconds in best.items()}


def _plain(weight: Any, scheme: Any) -> Any:
    """Quantise as one writes it down."""
    import torch

    tall, wide = scheme.block[0], scheme.block[1] or COLUMNS
    blocks = weight.float().view(ROWS // tall, tall, COLUMNS // wide, wide)
    scales = blocks.abs().amax((1, 3), keepdim=True).clamp(1e-4) / (127 if tall == 1 else 448)
    if scheme.powers:
        scales = torch.exp2(torch.ceil(torch.log2(scales)))
    codes = blocks / scales
    return (codes.round() if tall == 1 else codes).to(scheme.codes).view(ROWS, COLUMNS), scales


def _plain_back(codes: Any, scales: Any, scheme: Any, dtype: Any) -> Any:
    """Dequantise as one writes it down."""
    tall, wide = scheme.block[0], scheme.block[1] or COLUMNS
    spread = scales.repeat_interleave(tall, 0).repeat_interleave(wide, 1)
    return (codes.float() * spread).to(dtype)


def _folder() -> list[Row]:
    """Convert a folder of float32 weights, against writing as many bytes."""
    import torch
    from safetensors.torch import save_file

    with TemporaryDirectory(prefix="bench-") as place:
        source, target = Path(place, "source"), Path(place, "target")
        source.mkdir()
        target.mkdir()
        (source / "config.json").write_text("{}")
        tensors = {f"w{i}.weight": torch.randn(4096, 4096) for i in range(6)}
        save_file(tensors, source / "model.safetensors")
        size = sum(tensor.nbytes for tensor in tensors.values())
        command = [sys.executable, "-c", CONVERT, str(source), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    took, peak, known, again, little, whole = map(float, done.stdout.split())
    return [
        Row(name="convert a folder to fp8_ue8m0", ours=size / took / GIGA, unit="GB/s"),
        Row(
            name="peak of memory above what was loaded, against two tensors of the folder",
            ours=peak,
            theirs=2 * size / len(tensors) / 2**20,
            unit="MiB",
            ratio=peak / (2 * size / len(tensors) / 2**20),
            goal="ratio < 1",
        ),
        Row(
            name="store what was hashed while it was written, against hashing it then",
            ours=known,
            theirs=again,
            unit="s",
            ratio=known / again,
            goal="ratio < 1",
        ),
        Row(
            name="  bytes that are read for it",
            ours=little / GIGA,
            theirs=whole / GIGA,
            unit="GB",
            ratio=little / whole,
            goal="ratio < 0.01",
        ),
    ]
