"""Workers of a gang that opens no process group wait for each other, and leave the port free."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

from orchestrator.node import rendezvous_port
from orchestrator.node.gang_barrier import wait_for_all

HOST = "127.0.0.1"
WORKERS = 3


def nothing() -> None:
    """Say nothing against waiting."""


@pytest.fixture
def address() -> str:
    return rendezvous_port.keep_open(HOST)


def begun(
    pool: ThreadPoolExecutor, address: str, rank: int, go_on: Callable[[], object] = nothing
) -> Future[None]:
    server = None if rank else rendezvous_port.take(address)
    return pool.submit(wait_for_all, address, rank, WORKERS, go_on, server)


def test_all_wait_for_the_last_and_the_port_is_free_at_once(address: str) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        first, second = begun(pool, address, 0), begun(pool, address, 2)
        with pytest.raises(TimeoutError):
            second.result(1.0)
        assert not first.done()
        last = begun(pool, address, 1)
        for each in (first, second, last):
            each.result(10.0)
    with socket.socket() as script:  # as a script may: without SO_REUSEADDR
        script.bind((HOST, int(address.rpartition(":")[2])))


def test_a_stranger_at_the_port_is_no_worker(address: str) -> None:
    where = (HOST, int(address.rpartition(":")[2]))
    with ThreadPoolExecutor(WORKERS) as pool:
        first = begun(pool, address, 0)
        with socket.create_connection(where) as silent, socket.create_connection(where) as loud:
            loud.sendall(b"GET / HTTP/1.1")
            second = begun(pool, address, 1)
            with pytest.raises(TimeoutError):
                second.result(2.0)
            silent.close()
        last = begun(pool, address, 2)
        for each in (first, second, last):
            each.result(10.0)


def test_a_worker_is_heard_however_late_it_says_who_it_is(address: str) -> None:
    """Its first packet may be lost, or the machine too busy."""
    with ThreadPoolExecutor(WORKERS) as pool:
        first = begun(pool, address, 0)
        with socket.create_connection((HOST, int(address.rpartition(":")[2]))) as line:
            other = begun(pool, address, 1)
            with pytest.raises(TimeoutError):
                other.result(1.5)
            line.sendall((2).to_bytes(4))
            line.settimeout(10.0)
            assert line.recv(1) == b"g"
        first.result(10.0)
        other.result(10.0)


@pytest.mark.parametrize("rank", [0, 1])
def test_who_shall_wait_no_longer_does_not(address: str, rank: int) -> None:
    given_up = threading.Event()

    def go_on() -> None:
        if given_up.is_set():
            raise KeyboardInterrupt

    with ThreadPoolExecutor(WORKERS) as pool:
        first = begun(pool, address, 0, go_on if rank == 0 else nothing)
        second = begun(pool, address, 1, go_on if rank == 1 else nothing)
        given_up.set()
        with pytest.raises(KeyboardInterrupt):
            (second if rank else first).result(5.0)
        if rank == 0:
            with pytest.raises(ConnectionError, match=r"rank 0 at .* has gone while"):
                second.result(5.0)
        else:
            begun(pool, address, 1), begun(pool, address, 2)
            first.result(10.0)
    with suppress(OSError):
        rendezvous_port.close(address)
