"""What training a model in parts takes, against accelerate's FSDP2 and torchtitan.

The same Llama in float32, dealt out to two workers of one thread each, over gloo: our job as the
workers of an attempt, a script for accelerate, and torchtitan by its own command line and the shim
that it takes on a CPU, on random rows. In turns; the quickest round of each counts. Memory is the
most that a worker's process has held. torchtitan needs an environment of its own: its interpreter
is ORCHESTRATOR_TORCHTITAN_PYTHON, and its rows are left out, which a line says, where that is not
set.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from orchestrator import wiring
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.spec.command_stages import JOB as COMMAND
from orchestrator.messages import Succeeded
from orchestrator.worker.attempt import stream
from tests.benchmarks.sharded import ours
from tests.benchmarks.sharded.sizes import SAVES, SIZES, Measured, Resumed
from tests.benchmarks.table import Row, compare
from tests.build import attempt_request
from tests.ports import free_port

ROUNDS, WORKERS, SECONDS = 2, 2, 600.0
TITAN = os.environ.get("ORCHESTRATOR_TORCHTITAN_PYTHON", "")  # noqa: TID251 - where torchtitan is
OURS, ACCELERATE, PRETRAIN = "ours", "accelerate's FSDP2", "jobs.pretraining.pretrain"
SCRIPT = "tests.benchmarks.sharded.by_accelerate"
RESUMED = "tests.benchmarks.sharded.resumed"
CONFIGS = {"tiny": "tiny", "125M": "small"}
Train = Callable[[str, Path], list[Measured]]
T = TypeVar("T", Measured, Resumed)


def rows() -> list[Row]:
    """Make tokens once, then train each size by each in turns."""
    with TemporaryDirectory(prefix="bench-") as folder:
        place = Path(folder)
        data = Tokens(place)
        by: dict[str, Train] = {OURS: data.train, ACCELERATE: data.accelerate}
        if TITAN:
            by["torchtitan"] = data.titan
        else:
            line = "ORCHESTRATOR_TORCHTITAN_PYTHON is not set: no rows against torchtitan"
            print(line, file=sys.stderr)
        compared = [row for size in SIZES for row in _of_size(size, by, place)]
        saves = [_of_saves(data, place), *_of_resumes("125M", place)]
        return [*compared, _of_commands(data, place), *saves]


def _of_commands(data: Tokens, place: Path) -> Row:
    """Return what a script is slowed down by as a stage."""
    rounds = [(data.command("tiny", place), data.accelerate("tiny", place)) for _ in range(ROUNDS)]
    own, bare = (max(_pace("tiny", one) for one in each) for each in zip(*rounds, strict=True))
    name = "tokens of a script as a command stage, against torchrun's variables alone"
    return compare(name, own, bare, unit="tokens/s", goal="ratio >= 0.98")


def _of_saves(data: Tokens, place: Path) -> Row:
    """Return for how long training stands still for a checkpoint."""
    rounds = [(data.saves("125M", place), data.dcp("125M", place)) for _ in range(2)]
    own, bare = (min(map(_stall, each)) for each in zip(*rounds, strict=True))
    name = "checkpoint stall, 125M dealt out to two, against DCP's async_save by hand"
    return compare(name, own, bare, goal="ratio <= 1.1")


def _of_resumes(size: str, place: Path) -> list[Row]:
    """Return what it takes to go on from a checkpoint, each worker as on a node of its own."""
    with TemporaryDirectory(prefix="bench-", dir=place) as folder:
        words = [sys.executable, "-m", RESUMED, size, folder]
        workers = _measured([words] * WORKERS, _torchrun(), place, Resumed)
    brought = max(one.brought for one in workers) / 1e9
    own, bare = max(one.seconds for one in workers), max(one.by_hand for one in workers)
    name = f"{size} dealt out to two, resumed"
    return [
        compare(
            f"bytes that come to a node of {name}, against its checkpoint's",
            brought,
            workers[0].checkpoint / 1e9,
            unit="GB",
            goal="ratio <= 0.55",
        ),
        compare(f"{name}, against DCP by hand", own, bare, goal="ratio <= 1.1"),
    ]


def _stall(measured: Sequence[Measured]) -> float:
    return max(one.stall for one in measured)


def _pace(size: str, measured: Sequence[Measured]) -> float:
    return SIZES[size].tokens / max(one.seconds for one in measured)


def _of_size(size: str, by: Mapping[str, Train], place: Path) -> list[Row]:
    paces: dict[str, list[float]] = {name: [] for name in by}
    peaks: dict[str, list[int]] = {name: [] for name in by}
    for _ in range(ROUNDS):
        for name, train in by.items():
            measured = train(size, place)
            paces[name].append(_pace(size, measured))
            peaks[name].append(max(one.peak for one in measured))
    compared = []
    for name in list(by)[1:]:
        told = f"{size}, dealt out to two, against {name}"
        pace = max(paces[OURS]), max(paces[name])
        held = min(peaks[OURS]) / 1e9, min(peaks[name]) / 1e9
        compared += [
            compare(f"tokens of {told}", *pace, unit="tokens/s", goal="ratio >= 1.0"),
            compare(f"memory of {told}", *held, unit="GB", goal="ratio <= 1.05"),
        ]
    return compared


class Tokens:
    """A shard of tokens, its tokenizer, and who trains on it."""

    def __init__(self, place: Path) -> None:
        """Prepare them in a folder."""
        self._storage = (place / "store").as_uri()
        source = place / "text.txt"
        source.write_text("\n".join(f"{n} + {n % 91} = {n + n % 91}." for n in range(60_000)))
        chats = self._artifact("chats", "jobs.data.arithmetic.prepare", {"draws": 500})
        self._store = wiring.artifact_store(self._storage)
        tokenizer = self._store.fetch(chats) / "tokenizer"
        params = {"source": str(source), "tokenizer": str(tokenizer), "lines": True}
        self._data = self._artifact("tokens", "jobs.data.tokens.preparation.prepare", params)
        self._assets = tokenizer
        (shard, *_) = sorted(self._store.fetch(self._data).rglob("train*/*.bin")) or sorted(
            self._store.fetch(self._data).rglob("*.bin")
        )
        self._shard, self._run = shard.with_suffix(""), 0

    def train(self, size: str, place: Path) -> list[Measured]:
        """Train by our job."""
        return self._attempt(size, place, PRETRAIN, ours.params(SIZES[size]))

    def saves(self, size: str, place: Path) -> list[Measured]:
        """Train by our job, and save checkpoints."""
        return self._attempt(size, place, PRETRAIN, ours.params(SIZES[size], saves=SAVES))

    def command(self, size: str, place: Path) -> list[Measured]:
        """Train by the script for accelerate, which is a stage of ours."""
        command = [sys.executable, "-m", SCRIPT, size, str(self._shard)]
        metrics = [r"step (?P<step>\d+) loss (?P<loss>\S+)"]
        params = {"command": command, "processes": WORKERS, "metrics": metrics}
        return self._attempt(size, place, COMMAND, params, workers=1)

    def accelerate(self, size: str, place: Path, *more: str) -> list[Measured]:
        """Train by the script for accelerate, as torchrun starts it."""
        words = [sys.executable, "-m", SCRIPT, size, str(self._shard), *more]
        return _measured([words] * WORKERS, _torchrun(), place, Measured)

    def dcp(self, size: str, place: Path) -> list[Measured]:
        """Train by it, and save checkpoints by `torch.distributed.checkpoint`."""
        with TemporaryDirectory(prefix="bench-", dir=place) as folder:
            return self.accelerate(size, place, folder)

    def _attempt(
        self,
        size: str,
        place: Path,
        job: str,
        params: Mapping[str, object],
        *,
        workers: int = WORKERS,
    ) -> list[Measured]:
        self._run += 1
        spec = {
            "size": size,
            "storage": self._storage,
            "run": f"bench-{self._run}",
            "job": job,
            "params": params,
            "workers": workers,
            "data": asdict(self._data),
            "rendezvous": f"127.0.0.1:{free_port()}",
        }
        words = [sys.executable, "-m", ours.__name__, json.dumps(spec)]
        ranks = range(workers)
        return _measured(
            [[*words, str(rank)] for rank in ranks], [{} for _ in ranks], place, Measured
        )

    def titan(self, size: str, place: Path) -> list[Measured]:
        """Train by torchtitan, as torchrun starts it."""
        options = {
            "--parallelism.spmd_backend": "partial_dtensor",
            "--module": "tests.benchmarks.sharded.by_torchtitan",
            "--config": CONFIGS[size],
            "--hf_assets_path": str(self._assets),
            "--dump_folder": str(place / "dump"),
        }
        listed = [word for pair in options.items() for word in pair]
        words = [TITAN, "-m", "jobs.torchtitan.cpu", *listed]
        return _measured([words] * WORKERS, _torchrun(), place, Measured)

    def _artifact(self, run: str, job: str, params: Mapping[str, object]) -> ArtifactRef:
        from orchestrator.adapters.torch_process_group import open_process_group

        request = attempt_request(
            run=run, job=job, params=params, packages=("jobs",), storage=self._storage
        )
        batches = stream(
            request,
            rank=0,
            rendezvous=None,
            store=wiring.artifact_store(self._storage),
            clock=wiring.clock(),
            process_group=open_process_group,
        )
        *_, last = (message for batch in batches for message in batch)
        if not isinstance(last, Succeeded) or last.artifact is None:
            raise TypeError(f"{job} did not succeed: {last!r}")
        return last.artifact


def _torchrun() -> list[dict[str, str]]:
    """Return torchrun's variables for each process."""
    shared = {"WORLD_SIZE": str(WORKERS), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(free_port()), "LOCAL_WORLD_SIZE": str(WORKERS)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(WORKERS)]


def _measured(
    commands: Sequence[Sequence[str]],
    variables: Sequence[Mapping[str, str]],
    place: Path,
    kind: type[T],
) -> list[T]:
    """Run the processes of all workers; return what each has told.

    Raises:
        RuntimeError: One failed, or told nothing.
    """
    root = str(Path(__file__).parents[2])
    processes, outputs = [], [place / f"worker-{rank}.txt" for rank in range(len(commands))]
    for command, own, output in zip(commands, variables, outputs, strict=True):
        environment = {**os.environ, **own, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}  # noqa: TID251 - handed on
        with output.open("wb") as file:
            begun = subprocess.Popen(
                command, env=environment, cwd=place, stdout=file, stderr=subprocess.STDOUT
            )
            processes.append(begun)
    try:
        ends = [process.wait(SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    told = [output.read_text(errors="replace") for output in outputs]
    lines = [re.findall(r'^\{"seconds".*$', text, re.MULTILINE) for text in told]
    if any(ends) or not all(lines):
        raise RuntimeError("\n".join(told)[-3000:])
    return [kind(**json.loads(line)) for own in lines for line in own]
