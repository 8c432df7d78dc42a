"""What attempts run in tests of clusters: workers that do what the job's name says."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.messages import (
    Alive,
    AttemptRequest,
    Failed,
    LogLine,
    Message,
    Points,
    Progress,
    Succeeded,
)
from orchestrator.node import rendezvous_port as keeping
from orchestrator.worker.termination import asked_to_end
from tests.build import REF

Batches = Iterator[Sequence[Message]]


def worker(request: AttemptRequest, *, rank: int, rendezvous: str | None) -> Batches:
    """Do what `request.job` says; implements the port `Worker`."""
    yield from JOBS[request.job](request, rank, rendezvous)


def succeed(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    yield (LogLine(rank, "one"), Points(1, {"loss": 2.0}, 10.0))
    yield (LogLine(rank, "two"), Points(2, {"loss": 1.0}, 11.0), Progress(2, 2))
    yield (Succeeded(REF, {"loss": 1.0}),)


def who_called(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    """Say which function of ours, by its dotted name, has called this worker."""
    above = sys._getframe(2)  # past `worker`
    while not (module := str(above.f_globals["__name__"])).startswith("orchestrator."):
        above = above.f_back or above
    yield (LogLine(rank, f"{module}.{above.f_code.co_qualname}"),)
    yield (Succeeded(None),)


def fail(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    yield (LogLine(rank, "about to fail"),)
    failure = Failure(kind=FailureKind.DATA, evidence="no such column: 'x'", step=3)
    yield (Failed(failure),)


def raise_past_the_protocol(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    yield (LogLine(rank, "about to raise"),)
    raise RuntimeError("past the protocol")


def say_nothing(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    yield ()


def hold(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    """Hold the devices until the file `params["until"]` is there."""
    yield (LogLine(rank, str(os.getpid())),)
    until = Path(str(request.params["until"]))
    while not until.exists():
        threading.Event().wait(0.02)
        yield (Progress(1, 2),)
    yield (Succeeded(None),)


CHILD = """
import pathlib, sys, threading
def waits_in_the_child(until):
    print(flush=True)
    while not until.exists():
        threading.Event().wait(0.02)
waits_in_the_child(pathlib.Path(sys.argv[1]))
"""


def compute_with_a_child(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    """Compute, and have a process that waits, until the file `params["until"]` is there."""
    until = Path(str(request.params["until"]))
    words = [sys.executable, "-c", CHILD, str(until)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        thread = threading.Thread(target=_computes, args=(until,))
        thread.start()
        yield (LogLine(rank, "both run"),)
        thread.join()
    yield (Succeeded(None),)


def _computes(until: Path) -> None:
    while not until.exists():
        sum(range(10_000))


def live(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    """Say for ever that the job lives, at step 7."""
    yield (LogLine(rank, str(os.getpid())),)
    while True:
        threading.Event().wait(0.1)
        yield (Alive(rank, 7),)


def count_aloud(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    """Say numbers as fast as they are taken; as many bytes are in the file `params["said"]`."""
    said = Path(f"{request.params['said']}-{rank}")
    try:
        for number in itertools.count():
            with said.open("ab", buffering=0) as file:
                file.write(b".")
            yield (LogLine(rank, str(number)),)
            if asked_to_end():
                return
    finally:
        said.with_suffix(".left").touch()


def tell_workers(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    yield (LogLine(rank, f"{rank + 1} of {request.needs.workers}"),)
    yield (Succeeded(None),)


def tell_environment(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    names = [str(name) for name in request.params["names"]]  # type: ignore[attr-defined]
    yield (LogLine(rank, json.dumps({name: os.environ.get(name) for name in names})),)  # noqa: TID251 - asked for
    yield (Succeeded(None),)


def meet(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    """Let rank 0 and rank 1 find each other at the address that they were given."""
    host, _, port = (rendezvous or "").rpartition(":")
    if rank == 0:
        server = keeping.take(rendezvous or "")
        assert server is not None, "the port is open since its address was told"
        with server:
            server.settimeout(20.0)
            peer, _ = server.accept()
            with peer:
                said = peer.recv(100).decode()
    else:
        said = _say_hello(host, int(port))
    yield (LogLine(rank, said), Points(1, {"rank": float(rank)}, 1.0))
    yield (Succeeded(REF if rank == 0 else None),)


def lose_one(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    """Kill rank 1; rank 0 sees its link break and says so first."""
    yield (LogLine(rank, "started"),)
    if rank == 1:
        threading.Event().wait(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    yield (Failed(Failure(kind=FailureKind.INTERCONNECT, evidence="Connection closed by peer")),)


def die_with_last_words(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    """Write past Python, and be gone before anybody could read it."""
    yield (LogLine(rank, "started"),)
    if rank == request.needs.workers - 1:
        os.write(1, b"started\n")
        os.write(2, b"CUDA error: an illegal memory access was encountered\n")
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()


def exit_with_last_words(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    """End itself at once, as Python or as native code does, after a line of nobody's."""
    yield (LogLine(rank, "started"),)
    if rank == request.needs.workers - 1:
        os.write(2, b"xyzzy: fatal 0x77")
        if request.params["how"] == "native":
            ctypes.CDLL(None).exit(77)
        if request.params["how"] == "abort":
            os.write(2, b"\n")
            os.abort()
        os._exit(13)
    threading.Event().wait()


class DeadlyBatch(tuple[Message, ...]):
    """What ends its process when it is sent."""

    __slots__ = ()

    def __reduce__(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


def fail_and_die_unheard(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    """Fail, and be gone before that is sent."""
    yield (LogLine(rank, "started"),)
    if rank == request.needs.workers - 1:
        failure = Failure(kind=FailureKind.DATA, evidence="no such column: 'x'", step=3)
        yield DeadlyBatch((Failed(failure, 12.0),))
    threading.Event().wait()


def break_one(request: AttemptRequest, rank: int, rendezvous: str | None) -> Batches:
    """Fail in rank 1 alone, while rank 0 goes on for ever."""
    yield (LogLine(rank, str(os.getpid())),)
    if rank == 1:
        yield (Failed(Failure(kind=FailureKind.DATA, evidence="rank 1 has no data")),)
        return
    threading.Event().wait()


def _say_hello(host: str, port: int) -> str:
    for _ in range(100):
        try:
            with socket.create_connection((host, port), timeout=1.0) as peer:
                peer.sendall(b"hello")
                return "said hello"
        except OSError:
            threading.Event().wait(0.1)
    return "nobody there"


JOBS = {
    job.__name__: job
    for job in (
        succeed,
        who_called,
        fail,
        raise_past_the_protocol,
        say_nothing,
        hold,
        compute_with_a_child,
        live,
        count_aloud,
        tell_workers,
        tell_environment,
        meet,
        lose_one,
        die_with_last_words,
        exit_with_last_words,
        fail_and_die_unheard,
        break_one,
    )
}
