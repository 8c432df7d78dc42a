"""Where the workers of a gang wait for each other whose job opens no process group of its own.

Rank 0 has held the port of the gang open since its address was told; the others connect to it, say
who they are, and wait for a byte. They hang up first, so that the port is free at once for what
the job starts. torch isn't needed.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

_TICK_SECONDS = 0.5  # between two looks whether to wait any longer
_HANG_UP_SECONDS = 5.0
_RANK_BYTES, _GO = 4, b"g"
_GONE = "rank 0 at {} has gone while others waited for it"


def wait_for_all(
    address: str,
    rank: int,
    workers: int,
    go_on: Callable[[], object],
    server: socket.socket | None = None,
) -> None:
    """Wait until all `workers` of the gang that meets at `HOST:PORT` have called this.

    That is however long it takes one of them; `go_on` raises where this one shall wait no longer.
    `server` is the open port, which is rank 0's and is closed here.

    Raises:
        ConnectionError: Rank 0 has gone.
    """
    if server is not None:
        _receive(server, workers, go_on)
        return
    try:
        with _connected(address, go_on) as line:
            line.sendall(rank.to_bytes(_RANK_BYTES))
            goes = _word(line, go_on) == _GO
    except OSError as error:
        raise ConnectionError(f"{_GONE.format(address)}: {error}") from error
    if not goes:
        raise ConnectionError(_GONE.format(address))


def _receive(server: socket.socket, workers: int, go_on: Callable[[], object]) -> None:
    """Wait for the others, then let all of them go."""
    lines: dict[int, socket.socket] = {}
    with server, ExitStack() as stack, selectors.DefaultSelector() as silent:
        silent.register(server, selectors.EVENT_READ)
        while len(lines) < workers - 1:
            go_on()
            for key, _ in silent.select(_TICK_SECONDS):
                with suppress(OSError):  # it has gone
                    if key.fileobj is server:
                        line = stack.enter_context(server.accept()[0])
                        silent.register(line, selectors.EVENT_READ, line)
                        continue
                    line = key.data
                    silent.unregister(line)
                    line.settimeout(_TICK_SECONDS)
                    who = int.from_bytes(line.recv(_RANK_BYTES))
                    if 0 < who < workers:  # others may try any port of a host
                        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                        lines[who] = line
        for line in lines.values():
            with suppress(OSError):
                line.sendall(_GO)
        deadline = time.monotonic() + _HANG_UP_SECONDS
        for line in lines.values():
            line.settimeout(max(_TICK_SECONDS, deadline - time.monotonic()))
            with suppress(OSError):
                line.recv(1)


@contextmanager
def _connected(address: str, go_on: Callable[[], object]) -> Iterator[socket.socket]:
    """Be connected to rank 0, whose port is open unless it has gone."""
    go_on()
    with socket.create_connection(_parted(address)) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        line.settimeout(_TICK_SECONDS)
        yield line


def _word(line: socket.socket, go_on: Callable[[], object]) -> bytes:
    while True:
        go_on()
        with suppress(TimeoutError):
            return line.recv(1)


def _parted(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
