"""The protocol between a job and its attempt.

A job is a plain function, named in a config by its dotted name:

    def pretrain(ctx: JobContext, *, steps: int = 200, lr: float = 1e-3) -> Metrics:
        ...

It reads its inputs from `ctx.inputs`, writes the files of its artifact under `ctx.output`, and
returns its headline metrics (or nothing). It knows no pipeline and no cluster: the attempt has
already set up the process group, and `ctx.device` is where its tensors go. A function with the
attribute `meets_by_itself` starts processes of its own, which meet at `MASTER_ADDR` themselves
once it has called `ctx.meet()`.

A job that splits what it does over its workers by a parameter `parallel` may have a function
`forecast_NAME(params, *, inputs, workers, memory_gb, bf16)` in its module. A plan shows the lines
that it yields, and refuses the stage where it raises `ValueError`, with what that says. `inputs`
are names, `memory_gb` is that of a chip where published, `bf16` whether it computes in it. It is
asked without `parallel` too, where `model` or `architecture` may name what outgrows such a chip.

This module and `orchestrator.engine` import the standard library alone; jobs import nothing else
of the orchestrator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

Metrics: TypeAlias = Mapping[str, float]


class ParityError(Exception):
    """What is to be served does not do what was trained: nothing is tried again or elsewhere.

    The message is one sentence that names the threshold, its limit and the value.
    """


class KnownFailureError(Exception):
    """The job knows why it can't go on, whatever its last lines show.

    `kind` is the name of a kind of failure that a job can know of (`docs/failures.md`); what
    follows is what follows that kind.
    """

    def __init__(self, kind: str, message: str) -> None:
        """Say which kind, and what shows it, in one line."""
        super().__init__(message)
        self.kind = kind


class DataError(KnownFailureError):
    """What a job reads is damaged, empty, or not made for what reads it: trying again is in vain.

    The message is one sentence that names the file or the folder, and what is wrong with it.
    """

    def __init__(self, message: str) -> None:
        """Say what is wrong with which file."""
        super().__init__("data", message)


def ranks_of_worker(devices: int, processes: int | None) -> int:
    """Return how many ranks a command has in a worker: we start them, or one process does."""
    return max(devices, processes or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a worker runs on.

    Attributes:
        pool: Name of the pool.
        accelerator: Name of the chip.
        vendor: Its maker.
        device: torch device of this worker (`cuda:0`, `npu:0`, `cpu`).
        backend: `torch.distributed` backend of the gang.
        formats: Weight formats that the chip can serve.
        memory_gb: Memory of a chip, GB, where published.
        emulated: Whether the chip is emulated; if so, no figure may be shown as the chip's.
        devices: Chips of this worker.
        tflops: Dense rates of a chip, TFLOP/s, by number type as torch names it, where published.
    """

    pool: str
    accelerator: str
    vendor: str
    device: str
    backend: str
    formats: tuple[str, ...]
    memory_gb: float | None
    emulated: bool
    devices: int = 1
    tflops: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A verified checkpoint.

    Attributes:
        step: The step after which it was taken.
        path: The folder that rank 0 filled.
        shards: The folders of all workers that wrote anything, by rank. There may have been more
            or fewer workers than there are now. From remote storage each is fetched when it is
            taken out of here, once for a node.
    """

    step: int
    path: Path
    shards: Sequence[Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What this attempt shall do otherwise than its parameters say, because an earlier one failed.

    Attributes:
        accumulate: Factor on the number of micro-batches, after one ran out of memory.
        rate: Factor on the learning rate, after a loss went astray.
    """

    accumulate: int = 1
    rate: float = 1.0


class JobContext(Protocol):
    """What an attempt hands to the job, once in every worker of the gang.

    With `world_size` > 1 the default `torch.distributed` process group is open; every worker
    calls the job with the same parameters. Rank 0 alone writes to `output`.
    `code` are the folders of `jobs.code`, as they are on this host. `env` are the variables that
    the config says, secrets apart.
    `local_rank` counts the workers of a node, from 0; each sees its own chips alone, so its device
    is the first in any case.
    """

    run: str
    stage: str
    attempt: int
    seed: int
    rank: int
    world_size: int
    local_rank: int
    hardware: Hardware
    inputs: Mapping[str, Path]
    output: Path
    code: tuple[Path, ...]
    env: Mapping[str, str]

    @property
    def adjust(self) -> Changes:
        """What this attempt shall do otherwise than its parameters say.

        A job that looks at it is given smaller micro-batches after one ran out of memory.
        """
        ...

    @property
    def device(self) -> str:
        """torch device of this worker, as `hardware.device`."""
        ...

    def end_if_asked(self) -> None:
        """End the job here where any call of the context would, and leave no sign of life.

        For a job that waits for processes of its own, which may say nothing for hours.
        """
        ...

    def stay(self) -> None:
        """Let the job end here though its pool is being emptied: it has done what it shall."""
        ...

    def meet(self) -> None:
        """Wait until all workers are here, however long, and free the port at `MASTER_ADDR`.

        For a job that `meets_by_itself`: what it starts waits for the others as long as its own
        libraries do, which may be minutes, and what one of them reads may take hours.
        """
        ...

    def busy(self, what: str) -> AbstractContextManager[None]:
        """Show that the job lives while it does `what` (`compiling`), without a call of its own.

        What lasts long between two calls of the context, else, is taken for a hang where the job
        stands still for `watch.hang`; here only the time limits of the stage bound it.
        """
        ...

    def log(self, message: str) -> None:
        """Add a line to the log of this stage."""
        ...

    def metrics(self, values: Metrics, *, step: int) -> None:
        """Record metric points of this step; never blocks. Only rank 0's are kept."""
        ...

    def report(self, name: str, text: str) -> None:
        """Show a text file with this attempt in the tracker, whether it succeeds or not.

        Only rank 0's are kept, of each `name` (letters, digits, `._-`) the last.
        """
        ...

    def tracker_variables(self) -> Mapping[str, str]:
        """Return the variables by which MLflow's own client writes to the run of this attempt.

        Waits some seconds until MLflow shows that run. Empty where nothing is tracked, or where
        the server can't be reached from here, which is told.
        """
        ...

    def hashed(self, path: str, sha256: str) -> None:
        """Say the SHA-256 of a whole file of `output` that was made while it was written.

        The file isn't read again for its manifest, unless it is changed after this call.
        """
        ...

    def progress(self, done: int, total: int) -> None:
        """Say how far the job is, in its own units (training steps, prompts)."""
        ...

    def save_checkpoint(self, step: int, write: Callable[[Path], None]) -> None:
        """Begin to save a checkpoint, and return: every worker calls this, after the same step.

        `write` fills a folder with this worker's share of a snapshot, beside the job. The call
        waits for the save before; a later one raises what goes wrong. Steps grow. A save that the
        storage refuses is told and passed over, three in a row; a fourth one ends the attempt.
        """
        ...

    @property
    def saving(self) -> bool:
        """Whether the last save is still under way."""
        ...

    def finish_saving(self) -> None:
        """Wait until the last save is done; raise what went wrong."""
        ...

    def saving_last(self) -> AbstractContextManager[float]:
        """Let a job that has failed, or shall end, save what is whole, and wait for it in here.

        Yields for how many seconds workers may wait for each other in here (`attempts.last_save`);
        so long may the save take, and that of a job that shall end `limits.kill_after`. What goes
        wrong in here is told in a line, and not raised.
        """
        ...

    def announce_checkpoint(self, step: int, *, last: bool = False) -> None:
        """Say, as rank 0, that the checkpoint of `step` is to be saved by all; `last` of all.

        For jobs whose workers don't know by themselves after which step to save.
        """
        ...

    def announced_checkpoint(self, after: int) -> tuple[int, bool] | None:
        """Return the next step that rank 0 has announced, and whether it is the last of all.

        The next is the first beyond `after`; the last is returned also where it is not beyond it.
        Asks the storage each time.
        """
        ...

    def latest_checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint that this attempt goes on from, the same in every worker.

        It is the newest of this stage that verifies. Every worker calls this, before the first
        save: an attempt that doesn't ask begins anew, and what earlier ones have saved is void.
        """
        ...

    def saved_checkpoint(self, step: int) -> Checkpoint:
        """Return the last save, of `step`, when it is done; every worker calls this.

        Raises what went wrong, also where the storage refused it.
        """
        ...
