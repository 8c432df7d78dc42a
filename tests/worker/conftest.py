"""Jobs written for a test, and what it takes to run an attempt of them here."""

from __future__ import annotations

import itertools
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.failures.kinds import Failure
from orchestrator.core.runs.checkpoint_names import CheckpointId, Token, parse_id
from orchestrator.core.spec.hardware import Accelerator, Pool
from orchestrator.messages import AttemptRequest, Failed, LogLine, Message, Succeeded
from orchestrator.node.scratch import LOCK
from orchestrator.ports import Clock
from orchestrator.worker.attempt import PACE, StreamPace, stream
from orchestrator.worker.runtime import TrackedRun, nowhere
from tests.build import attempt_request

CHIP = Accelerator(name="H800", vendor="NVIDIA", device="cuda", backend="nccl", memory_gb=80.0)
_numbers = itertools.count()


class FixedClock:
    """A clock that stands still."""

    def now(self) -> float:
        return 1000.0

    def monotonic(self) -> float:
        return self.now()

    def sleep(self, seconds: float) -> None:
        raise AssertionError


@dataclass
class FakeProcessGroup:
    """Notes how gangs are opened and closed; may refuse to open."""

    error: Exception | None = None
    calls: list[object] = field(default_factory=list)
    seconds_to_close: float = 0.0

    @contextmanager
    def __call__(  # noqa: PLR0913 - as the real one
        self,
        rendezvous: str | None,
        rank: int,
        world_size: int,
        backend: str,
        *,
        cpu_threads: int,
        fetch: Callable[[], object],
        go_on: Callable[[], object],
    ) -> Iterator[None]:
        self.calls.append((rendezvous, rank, world_size, backend, cpu_threads))
        if self.error is not None:
            raise self.error
        fetch()
        go_on()
        yield
        threading.Event().wait(self.seconds_to_close)
        self.calls.append("closed")


@dataclass
class Bench:
    """Writes jobs into a package of their own, and runs attempts of them."""

    folder: Path
    package: str
    store: FsspecArtifactStore
    process_group: Any = field(default_factory=FakeProcessGroup)
    clock: Clock = field(default_factory=FixedClock)
    pace: StreamPace = PACE
    tracked_run: TrackedRun = nowhere
    end_process: Callable[[Sequence[Message]], None] = lambda _: None

    def write(self, source: str) -> None:
        place = self.folder / self.package
        place.mkdir(parents=True, exist_ok=True)
        (place / "__init__.py").write_text("")
        (place / "jobs.py").write_text(textwrap.dedent(source))

    def request(self, job: str = "job", **changes: object) -> AttemptRequest:
        facts: dict[str, object] = {
            "run": "r2-1",
            "epoch": 3,
            "job": job if "." in job else f"{self.package}.jobs.{job}",
            "packages": (self.package,),
            "code": (str(self.folder),),
            "storage": self.store._base,
            "seed": 7,
            "pool": Pool(name="nvidia", accelerator=CHIP),
            **changes,
        }
        return attempt_request(**facts)  # type: ignore[arg-type]

    def stream(
        self, request: AttemptRequest, rank: int = 0, rendezvous: str | None = None
    ) -> Iterator[Sequence[Message]]:
        return stream(
            request,
            rank=rank,
            rendezvous=rendezvous,
            store=self.store,
            clock=self.clock,
            process_group=self.process_group,
            pace=self.pace,
            tracked_run=self.tracked_run,
            end_process=self.end_process,
        )

    def together(self, request: AttemptRequest) -> list[list[Message]]:
        """Run all workers of a gang, each in a thread, the last of them first; by rank."""
        said: list[list[Message]] = [[] for _ in range(request.needs.workers)]

        def work(rank: int) -> None:
            for batch in self.stream(request, rank):
                said[rank].extend(batch)

        ranks = reversed(range(len(said)))
        threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in ranks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return said

    def messages(self, source: str, *, rank: int = 0, **changes: object) -> list[Message]:
        self.write(source)
        return [m for batch in self.stream(self.request(**changes), rank) for m in batch]

    def result(self, source: str, *, rank: int = 0, **changes: object) -> Succeeded:
        outcome = self.messages(source, rank=rank, **changes)[-1]
        assert isinstance(outcome, Succeeded), outcome
        return outcome

    def failure(self, source: str, *, rank: int = 0, **changes: object) -> Failure:
        self.write(source)
        return self.failure_of(self.request(**changes), rank)

    def failure_of(self, request: AttemptRequest, rank: int = 0) -> Failure:
        outcome = [m for batch in self.stream(request, rank) for m in batch][-1]
        assert isinstance(outcome, Failed), outcome
        return outcome.failure

    def lines(self, source: str, **changes: object) -> list[str]:
        return [m.text for m in self.messages(source, **changes) if isinstance(m, LogLine)]

    def artifact(
        self, name: str, files: Mapping[str, bytes], meta: Mapping[str, str] | None = None
    ) -> ArtifactRef:
        folder = self.store.scratch(name)
        for path, content in files.items():
            (folder / path).write_bytes(content)
        return self.store.commit(folder, name, meta or {})

    def checkpoints(self, stage: str = "train", run: str = "r2-1") -> list[str]:
        """Return the checkpoints that are there, whole or not, as `STEP-EPOCH-ATTEMPT`."""
        names = self.store.names(f"checkpoints/{run}/{stage}")
        found = [one for name in names if (one := parse_id(name))]
        return [f"{one.step}-{one.token.epoch}-{one.token.attempt}" for one in sorted(found)]

    def sealed(self) -> list[str]:
        """Return those of them that are whole."""
        parts = ((name, *map(int, name.split("-"))) for name in self.checkpoints())
        return [
            name
            for name, step, _, attempt in parts
            if (self.folder_of(step, attempt) / "manifest.json").is_file()
        ]

    def folder_of(self, step: int, attempt: int = 1) -> Path:
        """Return the folder of a checkpoint."""
        name = f"checkpoints/r2-1/train/{CheckpointId(step, Token(3, attempt))}"
        return self.stored / name

    def scratch(self) -> list[Path]:
        """Return the scratch folders that are left."""
        return [path for path in self.stored.glob(".scratch/*/*") if path.name != LOCK]

    @property
    def stored(self) -> Path:
        """The folder of the store."""
        return Path(self.store._base.removeprefix("file://"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    paths, threads = list(sys.path), set(threading.enumerate())
    package = f"userjobs{next(_numbers)}"
    yield Bench(tmp_path / "code", package, FsspecArtifactStore(str(tmp_path / "store")))
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
    sys.path[:] = paths
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Return a function that waits until something is so, at most ten seconds."""
    pause = threading.Event()

    def wait(so: Callable[[], bool]) -> None:
        for _ in range(1000):
            if so():
                return
            pause.wait(0.01)
        raise AssertionError

    return wait
