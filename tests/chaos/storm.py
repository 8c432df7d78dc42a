"""A storm: one training run, and faults that hit all parts of it, seeded, one after the other.

Everything is done from outside, as it happens to a user: processes are killed or stopped by their
ids, and commands are typed. A fault comes when the run has recovered from the last one and has
made a checkpoint, so that each is a fault of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil

from orchestrator import supervisor
from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.runs.run import Run, StageRun
from orchestrator.service import runs
from orchestrator.supervisor.record import wait
from tests.conftest import Workplace

PIPELINE = """
defaults:
  - /job@stages.data: data_arithmetic
  - _self_
name: storm
stages:
  data:
    params: {{draws: 2000}}
  pretrain:
    job: paced.pretrain
    role: train
    inputs: {{data: data}}
    needs: {{workers: {workers}}}
    limits: {limits}
    watch: {{hang: 4}}
    recovery: {{keep: 3}}
    params:
      pace: {pace}
      steps: {steps}
      batch_size: 16
      warmup: 20
      log_every: {every}
      validate_every: {steps}
      validation_rows: 64
      checkpoint_every: {every}
"""
# The real training, whose steps take as long as those of a model of some size.
PACED = """
import time

from jobs import pretraining


class Paced:
    def __init__(self, ctx, pace):
        self._ctx, self._pace = ctx, pace

    def __getattr__(self, name):
        return getattr(self._ctx, name)

    def progress(self, done, total):
        time.sleep(self._pace)
        self._ctx.progress(done, total)


def pretrain(ctx, *, pace, **params):
    return pretraining.pretrain(Paced(ctx, pace), **params)
"""
# A pool that has lost its last node is waited for, and given up well before the storm is.
PATIENT = "{attempts: 1000, tries: 1000, total: 1000, backoff: 0.1, pending: 30}"
OVERRIDES = ("pipeline=storm", "jobs.packages=[jobs,paced]", "jobs.code=[.]")
SECONDS_TO_RECOVER = 120.0
SECONDS_OF_A_STOP = 8.0


@dataclass
class Storm:
    """A run in `place`, and what has been done to it."""

    place: Workplace
    seed: int
    steps: int
    pace: float = 0.0
    every: int = 5
    size: int = 2  # workers of the gang
    limits: str = PATIENT
    faults: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    run: str = ""

    def __post_init__(self) -> None:
        self.dice = Random(self.seed)  # noqa: S311 - a die, no secret
        self.home = self.place.folder / ".orchestrator"
        conf = self.place.folder / "conf" / "pipeline"
        conf.mkdir(parents=True, exist_ok=True)
        facts = {
            "steps": self.steps,
            "pace": self.pace,
            "every": self.every,
            "workers": self.size,
            "limits": self.limits,
        }
        (conf / "storm.yaml").write_text(PIPELINE.format(**facts))
        (self.place.folder / "paced.py").write_text(PACED)
        self._controller: subprocess.Popen[bytes] | None = None

    # --- the run --------------------------------------------------------------------------------

    def launch(self, *overrides: str) -> None:
        """Launch the run; its stages are never reused."""
        self._earlier = self._runs()
        self._begin("launch", "--no-cache", "--config-dir", "conf", *OVERRIDES, *overrides)
        assert wait(self._listed, 300.0, tick=0.5), "the run is not in the store"

    def resume(self) -> None:
        """Go on with the run after its controller was killed, or after it was paused."""
        self._begin("resume", self.run, "--take-over", "--no-cache")

    def finish(self, seconds: float) -> int:
        """Wait for the controller's end; return its exit code."""
        assert self._controller is not None
        return self._controller.wait(seconds)

    def told(self) -> Run:
        """Return the run as the database has it."""
        store = SqlDatabase(f"sqlite:///{self.home}/events.db")
        try:
            return runs.load(store, store.header(self.run))
        finally:
            store.close()

    def stage(self) -> StageRun:
        """Return its training stage."""
        return self.told().stages["pretrain"]

    @property
    def seconds(self) -> float:
        """Seconds from the first attempt to train, asked for, to the end of the last."""
        attempts = self.stage().attempts
        return (attempts[-1].ended or 0.0) - attempts[0].started

    def _begin(self, *words: str) -> None:
        log = (self.place.folder / "controller.log").open("ab")
        self._controller = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words],
            cwd=self.place.folder,
            env=self.place.environment,
            stdout=log,
            stderr=log,
        )
        log.close()

    def _listed(self) -> bool:
        new = [run for run in self._runs() if run not in self._earlier]
        self.run = new[0] if new else ""
        return bool(new)

    def _runs(self) -> list[str]:
        if not self.home.exists():
            return []
        store = SqlDatabase(f"sqlite:///{self.home}/events.db")
        try:
            return [header.run for header in store.runs()]
        finally:
            store.close()

    # --- faults ---------------------------------------------------------------------------------

    def rage(self, kinds: Sequence[str]) -> None:
        """Do faults of these kinds, shuffled, each once the run has recovered from the last."""
        for kind in self.dice.sample(kinds, len(kinds)):
            if not self._recovered():
                break  # it is over
            time.sleep(self.dice.uniform(0.0, 1.0))  # noqa: TID251 - a test of real processes
            began = time.monotonic()
            if self._act(kind)():
                self.faults.append(kind)
                print(f"{len(self.faults)}: {kind}", flush=True)
                self._recovered()
                self.recoveries.append(time.monotonic() - began)

    def _recovered(self) -> bool:
        """Wait until there is one more checkpoint than now; False when the run is over."""
        made = _made(self.told())

        def newer() -> bool:
            now = self.told()
            return now.done or _made(now) > made

        assert wait(newer, SECONDS_TO_RECOVER, tick=0.3), f"no progress after {self.faults[-3:]}"
        return not self.told().done

    def _act(self, kind: str) -> Callable[[], bool]:
        return {
            "kill worker": self._kill_worker,
            "stop worker": self._stop_worker,
            "kill controller": self._kill_controller,
            "kill MLflow": self._kill_mlflow,
            "stop MLflow": self._stop_mlflow,
            "kill raylet": self._kill_raylet,
            "stop raylet": self._stop_raylet,
        }[kind]

    def workers(self) -> list[psutil.Process]:
        """Return the processes of the gang that trains."""
        found = [one for one in self._family() if _named(one, "ray::Member")]
        return sorted(found, key=lambda one: one.pid)

    def _kill_worker(self) -> bool:
        return self._signal_one(self.workers(), signal.SIGKILL)

    def _stop_worker(self) -> bool:
        """Stop a worker for good: whoever gives it up must end it too."""
        return self._signal_one(self.workers(), signal.SIGSTOP)

    def _kill_controller(self) -> bool:
        if self._controller is None or self._controller.poll() is not None:
            return False
        self._controller.kill()
        self._controller.wait()
        self.resume()
        return True

    def _kill_mlflow(self) -> bool:
        service = supervisor.find(self.home, "mlflow")
        if service is None or not service.processes:
            return False
        for pid in service.processes.values():
            os.killpg(pid, signal.SIGKILL)
        wait(lambda: not _lives(service.pid), 30.0)
        return self.place.run("ui", "--no-browser").returncode == 0

    def _stop_mlflow(self) -> bool:
        service = supervisor.find(self.home, "mlflow")
        if service is None or not service.processes:
            return False
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in service.processes.values():
                os.killpg(pid, number)
            if number == signal.SIGSTOP:
                time.sleep(SECONDS_OF_A_STOP)  # noqa: TID251 - as above
        return True

    def _kill_raylet(self) -> bool:
        return self._signal_one(self._raylets_that_work(), signal.SIGKILL)

    def _stop_raylet(self) -> bool:
        return self._signal_one(self._raylets_that_work(), signal.SIGSTOP)

    def _raylets_that_work(self) -> list[psutil.Process]:
        """Return the raylet of the node on which the gang is."""
        return [p for one in self.workers()[:1] for p in one.parents() if "raylet" in p.name()]

    def _signal_one(self, found: list[psutil.Process], number: signal.Signals) -> bool:
        if not found:
            return False
        try:
            self.dice.choice(found).send_signal(number)
        except psutil.NoSuchProcess:
            return False
        return True

    def _family(self) -> Iterator[psutil.Process]:
        """Yield all processes of the managed cluster."""
        service = supervisor.find(self.home, "ray")
        if service is not None:
            yield from psutil.Process(service.pid).children(recursive=True)


def _made(run: Run) -> int:
    """Return how many checkpoints all attempts to train have made."""
    return sum(len(attempt.saved) for attempt in run.stages["pretrain"].attempts)


def left_running(folder: Path) -> list[str]:
    """Return the processes that have `folder` in their command line or working folder."""
    found = []
    for one in psutil.process_iter():
        try:
            words = " ".join(one.cmdline())
            if str(folder) in words or str(folder) in one.cwd():
                found.append(f"{one.pid} {words[:120]}")
        except psutil.Error:
            continue
    return found


def _named(process: psutil.Process, start: str) -> bool:
    try:
        return process.cmdline()[:1] != [] and process.cmdline()[0].startswith(start)
    except psutil.Error:
        return False


def _lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
