"""One worker's emulated chip: told of each step, it lets the faults come out where they would.

An error comes out of the next operator on the device, or of the next collective; where there is
neither (a plain CPU device, a gang of one), out of the call that names the step.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from orchestrator.core.spec.emulation import HOST_DEVICE, Emulation, Fault, FaultType
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Needs
from orchestrator.emulation.catalogue import catalogue
from orchestrator.emulation.fault_schedule import AttemptRank, FaultSchedule
from orchestrator.emulation.hooks import hooks
from orchestrator.messages import AttemptRequest
from orchestrator.ports import Clock

HOST_BACKEND = "gloo"


def provide(pool: Pool, needs: Needs) -> None:
    """Have this process see the device and the backend that an emulated `pool` says.

    Raises:
        JobError: It can't be had in this process.
    """
    emulation = pool.emulation
    if emulation is None or needs.devices == 0:
        return
    if pool.device != HOST_DEVICE:
        from orchestrator.emulation import device

        device.install(
            pool.accelerator,
            count=needs.devices,
            unsupported=emulation.unsupported,
            on_host=emulation.on_host,
        )
    if pool.backend != HOST_BACKEND:
        from orchestrator.emulation import groups

        groups.register(pool.backend, (HOST_DEVICE, pool.device), pool.accelerator)


@contextmanager
def emulated_chip(
    request: AttemptRequest, rank: int, *, clock: Clock, stop: threading.Event
) -> Iterator[EmulatedChip]:
    """Hold the chip that worker `rank` works on. `stop` ends what hangs."""
    pool, needs = request.pool, request.needs
    provide(pool, needs)
    emulation = pool.emulation if pool.emulation and needs.devices else Emulation()
    worker = AttemptRank(stage=request.stage, attempt=request.attempt, rank=rank)
    shared = needs.workers > 1
    chip = EmulatedChip(
        FaultSchedule(emulation.faults, worker),
        Outlets(
            device=pool.device != HOST_DEVICE and needs.devices > 0,
            collectives=shared and (pool.device != HOST_DEVICE or pool.backend != HOST_BACKEND),
        ),
        rank,
        clock,
        stop,
    )
    try:
        chip.reached(0)
        yield chip
    finally:
        chip.end()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlets:
    """Where faults can come out, beside the call that names a step."""

    device: bool
    collectives: bool


class EmulatedChip:
    """Implements `orchestrator.ports.Chip`."""

    def __init__(
        self,
        schedule: FaultSchedule,
        outlets: Outlets,
        rank: int,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        """Begin before the first step."""
        self._schedule = schedule
        self._outlets = outlets
        self._rank = rank
        self._clock = clock
        self._stop = stop
        self._lasting: list[tuple[Fault, int]] = []  # slow, delay: until which step
        self._step = -1
        self._since = time.perf_counter()
        self._silent: list[tuple[int, Callable[[], None]]] = []  # until which step, and its end

    def reached(self, step: int) -> None:
        """Do what is due after `step`: it may raise, wait, or end the process."""
        if step <= self._step:
            return
        self._step = step
        self._recover(step)
        self._stretch(step)
        for fault in self._schedule.due(step):
            self._begin(fault, step)
        self._since = time.perf_counter()

    def resumed(self, step: int) -> None:
        """Note that the job goes on after `step`."""
        self._step = max(self._step, step)
        self._schedule.resume(step)

    def end(self) -> None:
        """Let nothing be due any more."""
        self._recover(None)
        hooks.clear()

    # --- faults --------------------------------------------------------------------------------

    def _begin(self, fault: Fault, step: int) -> None:
        match fault.what:
            case FaultType.DIE:
                os.kill(os.getpid(), signal.SIGKILL)
            case FaultType.PRINT | FaultType.ABORT | FaultType.EXIT:
                self._say_natively(fault)
            case FaultType.SLOW | FaultType.DELAY:
                self._last(fault, step)
            case FaultType.NAN | FaultType.CORRUPT | FaultType.STUCK | FaultType.LINK:
                self._silently(fault, step)
            case FaultType.HANG:
                self._at_an_operator(self._hang)
            case FaultType.DROP:
                self._at_a_collective(partial(self._lose, fault))
            case FaultType.RAISE:
                self._raise(fault)

    def _last(self, fault: Fault, step: int) -> None:
        self._lasting.append((fault, step + fault.steps))
        if fault.what is FaultType.DELAY and self._outlets.collectives:
            hooks.collective = partial(self._wait, fault.seconds)

    def _raise(self, fault: Fault) -> None:
        signature = catalogue()[fault.signature] if fault.signature else None
        among = signature is not None and signature.where == "collective"
        (self._at_a_collective if among else self._at_an_operator)(partial(self._fail, fault))

    def _stretch(self, step: int) -> None:
        """Wait out what slows the step that just ended."""
        taken = time.perf_counter() - self._since
        for fault, _ in self._lasting:
            if fault.what is FaultType.SLOW:
                self._wait(taken * (fault.factor - 1))
            elif not self._outlets.collectives:
                self._wait(fault.seconds)
        delayed = any(fault.what is FaultType.DELAY for fault, _ in self._lasting)
        self._lasting = [(fault, until) for fault, until in self._lasting if step < until]
        if delayed and not any(fault.what is FaultType.DELAY for fault, _ in self._lasting):
            hooks.collective = None

    def _at_an_operator(self, act: Callable[[], None]) -> None:
        if not self._outlets.device:
            act()
            return

        def once() -> None:
            hooks.before = None
            act()

        hooks.before = once

    def _at_a_collective(self, act: Callable[[], None]) -> None:
        if not self._outlets.collectives:
            self._at_an_operator(act)
            return

        def once() -> None:
            hooks.collective = None
            act()

        hooks.collective = once

    def _silently(self, fault: Fault, step: int) -> None:
        """Have the chip work wrongly, and say nothing, for as many steps as the fault lasts.

        All products of a step are spoilt: some CPUs' attention makes numbers of one NaN again.
        """
        if "torch" not in sys.modules:
            return  # a job without it multiplies nothing
        from orchestrator.emulation import silent

        watched: Callable[[], None] = _nothing
        if fault.what is FaultType.LINK:
            hooks.link = partial(self._wait, fault.seconds)
        else:
            silent.begin(fault.what)
            if not self._outlets.device:
                watched = silent.on_host()

        def undo() -> None:
            silent.end(fault.what)
            watched()

        self._silent.append((step + fault.steps, undo))

    def _recover(self, step: int | None) -> None:
        """End what was silently wrong up to `step`; all of it where that is `None`."""
        over = [wrong for wrong in self._silent if step is None or wrong[0] <= step]
        self._silent = [wrong for wrong in self._silent if wrong not in over]
        for _, undo in reversed(over):
            undo()

    # --- what they do --------------------------------------------------------------------------

    def _fail(self, fault: Fault) -> None:
        raise _error_type(fault.error)(self._text(fault))

    def _say_natively(self, fault: Fault) -> None:
        """Write and end as a library in C++ does: Python has no part in it."""
        if fault.text or fault.signature:
            os.write(2, f"{self._text(fault)}\n".encode(errors="surrogateescape"))
        if fault.what is FaultType.ABORT:
            os.abort()
        if fault.what is FaultType.EXIT:
            os._exit(fault.code)

    def _lose(self, fault: Fault) -> None:
        self._wait(fault.seconds)
        self._fail(fault)

    def _hang(self) -> None:
        self._stop.wait()

    def _wait(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _text(self, fault: Fault) -> str:
        if fault.signature is None:
            return fault.text or "emulated fault"
        at = time.strftime("%Y-%m-%d-%H:%M:%S", time.gmtime(self._clock.now()))
        signature = catalogue()[fault.signature]
        return signature.fill(time=at, pid=os.getpid(), device=0, rank=self._rank)


def _error_type(name: str) -> type[Exception]:
    """Return the exception of that name: Python's own, or one made for the purpose."""
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, Exception):
        return known
    return type(name, (Exception,), {"__module__": "builtins"})  # told by its name alone


def _nothing() -> None:
    """Have nothing to undo."""
