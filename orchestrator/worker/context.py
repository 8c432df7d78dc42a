"""The context that a job is handed: the job's side of an attempt."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from orchestrator.core.artifact import FileEntry, Hashed
from orchestrator.core.errors import DivergenceError, JobError, OrchestratorError
from orchestrator.core.runs.divergence import Guard
from orchestrator.core.text import valid
from orchestrator.job import Changes, Checkpoint, Metrics
from orchestrator.messages import AttemptRequest, LogLine, Report
from orchestrator.node import rendezvous_port
from orchestrator.node.gang_barrier import wait_for_all
from orchestrator.node.process_hardware import hardware_of
from orchestrator.ports import Chip
from orchestrator.worker.checkpoints import Checkpoints
from orchestrator.worker.rank_membership import RankMembership
from orchestrator.worker.real_chip import RealChip
from orchestrator.worker.reported import numbers, whole
from orchestrator.worker.runtime import AttemptCancelledError, AttemptRuntime

REPORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SHA256 = re.compile(r"[0-9a-f]{64}")
LONGEST_REPORT = 1_000_000  # characters
LONGEST_BUSY = 100
SMALL = 2**62  # a step up to here needs no further look
MOST_NAMES = 10_000  # of metrics, that are known to be names


class AttemptContext:
    """The context of one worker. Implements `orchestrator.job.JobContext`.

    Every call ends the job when its attempt was given up, when a save has gone wrong, or when it
    shall leave its pool. `chip` is told of each step.
    """

    def __init__(
        self,
        request: AttemptRequest,
        rank: int,
        inputs: Mapping[str, Path],
        output: Path,
        runtime: AttemptRuntime,
    ) -> None:
        """Describe worker `rank` of the attempt."""
        self.run = request.run
        self.stage = request.stage
        self.attempt = request.attempt
        self.seed = request.seed
        self.adjusts = False  # whether the job has looked at `adjust`
        self._adjust = Changes(accumulate=request.adjust.accumulate, rate=request.adjust.rate)
        self.rank = rank
        self.world_size = request.needs.workers
        self.local_rank = request.local_rank(rank)
        self.hardware = hardware_of(request.pool, request.needs)
        self.inputs = inputs
        self.output = output
        self.code: tuple[Path, ...] = ()
        self.rendezvous = ""  # where a gang meets that does so itself
        self.env = request.env
        self.hashes: dict[str, Hashed] = {}
        self._step: int | None = None
        self._done: int | None = None
        self.chip: Chip = RealChip()
        self.ended_at: float | None = None  # of a job that saved what was whole after that
        self._runtime = runtime
        self._names: set[str] = set()
        heartbeat = runtime.heartbeat
        self._metric_steps, self._progress_steps = heartbeat.count(), heartbeat.count()
        self._member = RankMembership(
            request=request,
            rank=rank,
            world_size=self.world_size,
            meta=meta_of(request),
            runtime=runtime,
        )
        self.checkpoints = Checkpoints(self._member)
        self._watched, self._guard = request.watch.metric, Guard(request.watch)

    @property
    def adjust(self) -> Changes:
        """What this attempt shall do otherwise than its parameters say."""
        self.adjusts = True
        return self._adjust

    @property
    def device(self) -> str:
        """torch device of this worker."""
        return self.hardware.device

    def end_if_asked(self) -> None:
        """End the job here if it shall end; this is no sign of life."""
        self._member.go_on()
        self.checkpoints.check()

    def stay(self) -> None:
        """Let the job end here though its pool is being emptied: it has done what it shall."""
        self.checkpoints.stays = True

    def meet(self) -> None:
        """Wait until all workers are here; what the job starts may open the port of the gang."""
        if self.world_size > 1 and self.rendezvous:
            with self.busy("waiting for the others"):
                kept = rendezvous_port.take(self.rendezvous) if self.rank == 0 else None
                wait_for_all(self.rendezvous, self.rank, self.world_size, self.end_if_asked, kept)
        rendezvous_port.close(self.rendezvous)

    @property
    def last_step(self) -> int | None:
        """Last step that the job named, or how far its progress is before it named one."""
        return self._done if self._step is None else self._step

    def go_on(self) -> None:
        """Leave a sign of life; end the job here if it shall end."""
        self._runtime.heartbeat.beat(self._runtime.clock.monotonic())
        self.end_if_asked()

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Give signs of life while the job does `what`, which takes its time."""
        self.go_on()
        words = valid(" ".join(str(what).split()))[:LONGEST_BUSY]
        with self._runtime.heartbeat.busy(words or "working", self._runtime.clock):
            yield

    def log(self, message: str) -> None:
        """Add a line to the log of this stage."""
        self.go_on()
        for line in str(message).splitlines() or [""]:
            self._runtime.outbox.line(LogLine(self.rank, line))

    def metrics(self, values: Metrics, *, step: int) -> None:
        """Record metric points of this step; only rank 0's are kept."""
        self.go_on()
        if type(step) is not int or not 0 <= step <= SMALL:
            step = whole(step, "metrics: step")
        self._step = step
        self._metric_steps.reached(step)
        if self.rank == 0:
            plain = _floats(values, self._names)
            if plain is None:
                plain = self._plain(values, step)
            self._runtime.outbox.points(step, plain, self._runtime.clock.now())
            if self._watched in plain:
                self._check(plain[self._watched], step)
        self.chip.reached(step)

    def _plain(self, values: Metrics, step: int) -> dict[str, float]:
        plain = numbers(values, f"metrics of step {step}")
        if len(self._names) < MOST_NAMES:
            self._names.update(plain)
        return plain

    def _check(self, value: float, step: int) -> None:
        astray = self._guard.divergence(value, step)
        if astray and not self._runtime.saves_last.is_set():
            raise DivergenceError(astray)

    def report(self, name: str, text: str) -> None:
        """Show a text file with this attempt in the tracker; only rank 0's are kept."""
        self.go_on()
        if not isinstance(name, str) or not REPORT_NAME.fullmatch(name):
            message = f"{name!r} is no name of a report; use letters, digits and ._-"
            raise JobError(message)
        if not isinstance(text, str):
            message = f"report {name!r} is a {type(text).__name__}; give a text"
            raise JobError(message)
        if self.rank == 0:
            self._runtime.outbox.say(Report(name, text[:LONGEST_REPORT]))

    def tracker_variables(self) -> Mapping[str, str]:
        """Return the variables by which MLflow's client writes to the run of this attempt."""
        with self.busy("waiting for its run in MLflow"):
            variables, why = self._runtime.tracked_run()
        if not variables and why:
            self.log(f"what the command sends to MLflow is not shown with this attempt: {why}")
        return variables

    def hashed(self, path: str, sha256: str) -> None:
        """Note the SHA-256 of a whole file of `output`, and when that was changed last."""
        self.go_on()
        if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
            message = f"{sha256!r} is no SHA-256 of {path!r}; give its 64 hexadecimal digits"
            raise JobError(message)
        try:
            status = (self.output / path).stat()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            message = f"{path!r} is no file of the output: {reason}; write it first"
            raise JobError(message) from error
        self.hashes[path] = Hashed(FileEntry(status.st_size, sha256), status.st_mtime_ns)

    def progress(self, done: int, total: int) -> None:
        """Say how far the job is; only rank 0's counts."""
        self.go_on()
        if type(done) is not int or type(total) is not int or not 0 <= done <= total <= SMALL:
            done, total = whole(done, "progress: done"), whole(total, "progress: total")
        self._done = done
        self._progress_steps.reached(done)
        if self.rank == 0:
            self._runtime.outbox.progress(done, total)
        self.chip.reached(done)

    def save_checkpoint(self, step: int, write: Callable[[Path], None]) -> None:
        """Begin to save a checkpoint: `write` fills this worker's folder, beside the job."""
        self.go_on()
        step = whole(step, "save_checkpoint: step")
        self._step = step if self._step is None else max(self._step, step)
        self.checkpoints.save(step, write)

    @property
    def saving(self) -> bool:
        """Whether the last save is still under way."""
        return self.checkpoints.saving

    def finish_saving(self) -> None:
        """Wait until the last save is done."""
        self.checkpoints.finish()

    @contextmanager
    def saving_last(self) -> Iterator[float]:
        """Let the job save what is whole though it has failed, or shall end."""
        runtime = self._runtime
        if self.ended_at is None:
            self.ended_at = runtime.clock.now()
        runtime.saves_last.set()
        try:
            with runtime.heartbeat.busy("saving the last checkpoint", runtime.clock):
                yield self._member.request.waits.last_save
        except (OrchestratorError, OSError, ValueError, AttemptCancelledError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            line = valid(f"the last checkpoint was not saved: {text}")
            runtime.outbox.line(LogLine(self.rank, line))
        finally:
            runtime.saves_last.clear()

    def announce_checkpoint(self, step: int, *, last: bool = False) -> None:
        """Say, as rank 0, that all are to save the checkpoint of `step`."""
        self.go_on()
        self.checkpoints.announce(step, last=last)

    def announced_checkpoint(self, after: int) -> tuple[int, bool] | None:
        """Return the next step that rank 0 has announced, and whether nothing follows."""
        self._member.go_on()
        return self.checkpoints.announced(after)

    def latest_checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint that this attempt goes on from, the same in all its workers."""
        self.go_on()
        checkpoint = self.checkpoints.latest()
        if checkpoint is not None:
            self.chip.resumed(checkpoint.step)
        return checkpoint

    def saved_checkpoint(self, step: int) -> Checkpoint:
        """Return the checkpoint of `step`, the last that was saved, every file verified."""
        self.go_on()
        return self.checkpoints.saved(whole(step, "saved_checkpoint: step"))


def meta_of(request: AttemptRequest) -> dict[str, str]:
    """Return what is noted in the manifests of all that an attempt stores."""
    return {
        "run": request.run,
        "stage": request.stage,
        "attempt": str(request.attempt),
        "epoch": str(request.epoch),
        "job": request.job,
        "pool": request.pool.name,
    }


def _floats(values: Metrics, names: Container[str]) -> dict[str, float] | None:
    """Return a copy of metrics that are plain already: the usual case, each step, is cheap."""
    if type(values) is not dict:
        return None
    for value in values.values():
        if type(value) is not float:
            return None
    for name in values:
        if type(name) is not str or name not in names:
            return None
    return dict(values)
