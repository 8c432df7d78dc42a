"""Ports of this machine that nobody has, for tests which leave them free until they are used."""

from __future__ import annotations

import random
import socket

_BELOW_EPHEMERAL = range(12_000, 32_000)
"""Linux draws the ports of connections from 32768 up (`ip_local_port_range`): one that a test
has closed there may be another connection's a moment later."""


def free_port(count: int = 1) -> int:
    """Return the first of `count` ports in a row at which nobody listens on any address."""
    while True:
        first = random.SystemRandom().choice(_BELOW_EPHEMERAL)
        if all(_is_free(port) for port in range(first, first + count)):
            return first


def free_address() -> str:
    """Return `127.0.0.1:PORT` with a port at which nobody listens."""
    return f"127.0.0.1:{free_port()}"


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return False
    return True
