"""Fakes behind the ports: everything in memory, and time that moves when somebody waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestrator.controller.controller_ports import ControllerPorts
from orchestrator.core.artifact import ArtifactRef, Hashed, Manifest
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.errors import StorageError
from orchestrator.core.runs.states import (
    AttemptCancelled,
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    Event,
)
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.policy import Gate
from orchestrator.messages import AttemptRequest, Failed, Message, PoolState, PoolStatus, Succeeded
from tests.memory import MemoryStore

Asked = AttemptRequest | Deployment
Script = Callable[[Asked], Sequence[tuple[float, Message]]]
ENDS = (AttemptSucceeded, AttemptFailed, AttemptCancelled)


class FakeClock:
    """Moves when somebody sleeps, and then does what was put down for the time that passed.

    `step` sets the time of day as somebody may set that of a machine.
    """

    def __init__(self, at: float = 0.0) -> None:
        self._now = at
        self._set = 0.0
        self._plans: list[tuple[float, Callable[[], object]]] = []

    def now(self) -> float:
        return self._now + self._set

    def monotonic(self) -> float:
        return self._now

    def step(self, seconds: float) -> None:
        """Set the time of day forward or back."""
        self._set += seconds

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        due = [plan for plan in self._plans if plan[0] <= self._now]
        self._plans = [plan for plan in self._plans if plan[0] > self._now]
        for _, act in due:
            act()

    def at(self, when: float, act: Callable[[], object]) -> None:
        """Do `act` when somebody sleeps past `when`."""
        self._plans.append((when, act))


class FakeCluster:
    """Plays a script for every attempt, and holds the loop to "commit first, act then".

    `script` gives, for what was asked, messages and the seconds after which they are said.
    `active` is what runs now, `asked` all that ever did. Serves as `Serving` too. With
    `recorded` false it lets an attempt be cancelled whose end is not committed.
    """

    recorded = True

    def __init__(self, clock: FakeClock, store: MemoryStore, script: Script) -> None:
        self._clock = clock
        self._store = store
        self._script = script
        self.active: dict[str, list[tuple[float, Message]]] = {}
        self.asked: dict[str, Asked] = {}
        self.cancelled: list[str] = []
        self.prepared: list[tuple[str, str]] = []
        self.released: list[str] = []
        self.closed = False

    def start(self, request: Asked) -> None:
        assert request.key not in self.asked, f"{request.key} was started twice"
        events = self._events_of(request)
        started = AttemptStarted(request.stage, request.attempt, request.pool.name)
        assert events == [started], f"{request.key} was started before that was committed"
        now = self._clock.now()
        self.asked[request.key] = request
        self.active[request.key] = [(now + wait, said) for wait, said in self._script(request)]

    def poll(self, key: str) -> Sequence[Message]:
        coming, now = self.active.get(key, []), self._clock.now()
        said = [message for at, message in coming if at <= now]
        if any(isinstance(message, Succeeded | Failed) for message in said):
            del self.active[key]
        elif said:
            self.active[key] = coming[len(said) :]
        return said

    def cancel(self, key: str) -> None:
        if key not in self.asked:
            return  # what another controller had started went with that one
        ended = isinstance(self._events_of(self.asked[key])[-1], ENDS)
        assert ended or not self.recorded, f"{key} was cancelled before that was committed"
        self.cancelled.append(key)
        self.active.pop(key, None)

    def prepare(self, request: AttemptRequest) -> None:
        self.prepared.append((request.key, request.pool.name))

    def release(self, run: str, stage: str) -> None:
        self.released.append(f"{run}/{stage}")

    def delete(self, endpoint: str) -> None:
        """Take a live endpoint away: there is none here."""

    def pools(self, wanted: Mapping[str, Pool]) -> Mapping[str, PoolStatus]:
        return {name: PoolStatus(name=name, state=PoolState.UP) for name in wanted}

    def close(self) -> None:
        self.active.clear()
        self.closed = True

    def _events_of(self, request: Asked) -> list[Event]:
        mine = (request.stage, request.attempt)
        events = [stored.event for stored in self._store.events(request.run)]
        return [e for e in events if (getattr(e, "stage", 0), getattr(e, "number", 0)) == mine]


class FakeTracker:
    """Counts how often it was told that there is something new."""

    def __init__(self) -> None:
        self.told = 0

    def notify(self) -> None:
        self.told += 1

    def close(self, timeout: float) -> bool:
        return True


class FakeGates:
    """Opens the gate of each stage in `opened`, with the words there."""

    def __init__(self) -> None:
        self.opened: dict[str, str] = {}

    def opened_by(self, gate: Gate, run: str, stage: str) -> str | None:
        return self.opened.get(stage)


class FakeArtifacts:
    """Knows of each artifact only whether it stands: one whose URI is in `torn` does not.

    While it is `away` nobody can write a mark.
    """

    def __init__(self, torn: Sequence[str] = ()) -> None:
        self.torn = set(torn)
        self.away = False
        self.manifests: dict[str, Manifest] = {}
        self.marks: dict[str, str] = {}

    def ref(self, name: str) -> ArtifactRef:
        """Return a reference to an artifact that is there."""
        manifest = Manifest({})
        self.manifests[f"mem://{name}"] = manifest
        return ArtifactRef(f"mem://{name}", manifest.digest, manifest.size)

    def stands(self, ref: ArtifactRef) -> bool:
        return ref.uri in self.manifests and ref.uri not in self.torn

    def scratch(self, name: str) -> Path:
        raise NotImplementedError

    def commit(
        self,
        folder: Path,
        name: str,
        meta: Mapping[str, str],
        hashed: Mapping[str, Hashed] | None = None,
    ) -> ArtifactRef:
        raise NotImplementedError

    def drop(self, folder: Path) -> None:
        raise NotImplementedError

    def fetch(self, ref: ArtifactRef) -> Path:
        raise NotImplementedError

    def read(self, ref: ArtifactRef, path: str) -> bytes:
        raise NotImplementedError

    def mark(self, name: str, text: str) -> None:
        if self.away:
            raise StorageError("the storage is away")
        self.marks[name] = text

    def marked(self, name: str) -> str | None:
        return self.marks.get(name)


class InMemory:
    """All that a controller works with, faked: `ports`, and its parts by their names."""

    def __init__(self, script: Script, at: float = 0.0) -> None:
        self.clock, self.store = FakeClock(at), MemoryStore()
        self.store.now = self.clock.monotonic  # nobody sets the database's
        self.artifacts, self.gates, self.tracker = FakeArtifacts(), FakeGates(), FakeTracker()
        self.cluster = FakeCluster(self.clock, self.store, script)
        parts = {n: getattr(self, n) for n in ("store", "artifacts", "tracker", "clock", "gates")}
        self.ports = ControllerPorts(cluster=self.cluster, serving=self.cluster, **parts)
