"""A cluster that runs nothing, and the turns that many controllers of one process take on it.

Chips are numbers: an attempt holds as many as it asks for, for as long as the cluster says, and
then has succeeded. Who finds no room waits in the line of its pool. All else is real: the
controllers, and the database that they share.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from orchestrator.core.spec.hardware import Pool
from orchestrator.messages import (
    AttemptRequest,
    Message,
    Placed,
    Points,
    PoolState,
    PoolStatus,
    Succeeded,
)

_STACK = 256 * 1024  # bytes: a controller needs few


class TurnsClock:
    """A clock that goes on to when the next one wakes; of its threads one runs, until it sleeps.

    So a thousand controllers take turns as a thousand processes would that never wait for a core:
    what they take is CPU time, of as many seconds as the clock says.
    """

    def __init__(self) -> None:
        """Let the calling thread run."""
        self._numbers = count()
        self._asleep: list[tuple[float, int, threading.Event]] = []
        self._time = 0.0
        self.errors: list[Exception] = []

    def now(self) -> float:
        """Return seconds since the clock began."""
        return self._time

    def monotonic(self) -> float:
        """Return the same."""
        return self._time

    def sleep(self, seconds: float) -> None:
        """Let others run for so long."""
        due, mine = self._time + seconds, threading.Event()
        heappush(self._asleep, (due, next(self._numbers), mine))
        self._wake()
        mine.wait()

    def start(self, act: Callable[[], object]) -> threading.Thread:
        """Have `act` run in a thread of its own, from when somebody sleeps."""
        turn = threading.Event()
        heappush(self._asleep, (self._time, next(self._numbers), turn))

        def work() -> None:
            turn.wait()
            try:
                act()
            except Exception as error:  # noqa: BLE001 - told at the end
                self.errors.append(error)
            self._wake()

        before = threading.stack_size(_STACK)
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        threading.stack_size(before)
        return thread

    def _wake(self) -> None:
        if self._asleep:
            self._time, _, turn = heappop(self._asleep)
            turn.set()


@dataclass(slots=True)
class _Attempt:
    """An attempt that holds `devices` of a pool from when it is placed, or waits for them."""

    pool: str
    devices: int
    ends: float | None = None
    told: bool = False


class FakeCluster:
    """The port `Cluster`: attempts last `seconds`. Serves as `Serving` too, where nothing does.

    `waits` has for how many seconds each place stood empty that an attempt had held, until another
    was asked for there.
    """

    def __init__(self, pools: Mapping[str, Pool], clock: TurnsClock, seconds: float) -> None:
        """Have all chips free."""
        self._clock, self.seconds = clock, seconds
        self._free = {name: pool.devices for name, pool in pools.items()}
        self._line: dict[str, deque[_Attempt]] = {name: deque() for name in pools}
        self._attempts: dict[str, _Attempt] = {}
        self._room: dict[str, deque[float]] = {name: deque() for name in pools}
        self.waits: list[float] = []

    def start(self, request: AttemptRequest) -> None:
        """Give the attempt its chips, or a place in the line."""
        attempt = _Attempt(request.pool.name, request.needs.workers * request.needs.devices)
        self._attempts[request.key] = attempt
        self._line[attempt.pool].append(attempt)
        if self._room[attempt.pool]:
            self.waits.append(self._clock.monotonic() - self._room[attempt.pool].popleft())
        self._place(attempt.pool)

    def poll(self, key: str) -> Sequence[Message]:
        """Say that the attempt has its place, and later that it has succeeded."""
        attempt = self._attempts.get(key)
        if attempt is None or attempt.ends is None:
            return ()
        messages: list[Message] = []
        if not attempt.told:
            attempt.told = True
            messages.append(Placed((f"{attempt.pool}-0",)))
        if self._clock.monotonic() >= attempt.ends:
            messages += [Points(step, {"loss": 1 / step}, float(step)) for step in (1, 2)]
            messages.append(Succeeded(None, {"loss": 0.5}))
            self.cancel(key)
            self._room[attempt.pool].append(self._clock.monotonic())
        return messages

    def cancel(self, key: str) -> None:
        """Give back what the attempt holds."""
        attempt = self._attempts.pop(key, None)
        if attempt is not None and attempt.ends is None:
            self._line[attempt.pool].remove(attempt)
        elif attempt is not None:
            self._free[attempt.pool] += attempt.devices
            self._place(attempt.pool)

    def pools(self, wanted: Mapping[str, Pool]) -> Mapping[str, PoolStatus]:
        """Return what is free."""
        return {
            name: PoolStatus(
                name=name,
                state=PoolState.UP,
                nodes=pool.nodes,
                devices=pool.devices,
                free=self._free[name],
            )
            for name, pool in wanted.items()
        }

    def _place(self, pool: str) -> None:
        line = self._line[pool]
        while line and line[0].devices <= self._free[pool]:
            attempt = line.popleft()
            self._free[pool] -= attempt.devices
            attempt.ends = self._clock.monotonic() + self.seconds

    def prepare(self, request: AttemptRequest) -> None:
        """Have nobody stand by."""

    def release(self, run: str, stage: str) -> None:
        """Send nobody away."""

    def close(self) -> None:
        """Leave it as it is."""
