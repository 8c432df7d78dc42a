"""Who listens of many hosts: all are asked at once, so that silent ones take the time of one."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import TypeAlias

MOST_AT_ONCE = 256  # each holds a descriptor meanwhile
Address: TypeAlias = tuple[str, int]  # of the network, as Ray has it: no name is looked up


def listening(addresses: Iterable[Address], seconds: float) -> set[Address]:
    """Return at which of `addresses` somebody listens, each asked for so many `seconds`."""
    asked, answered = sorted(set(addresses)), set[Address]()
    for first in range(0, len(asked), MOST_AT_ONCE):
        answered |= _listening(asked[first : first + MOST_AT_ONCE], seconds)
    return answered


def _listening(addresses: Iterable[Address], seconds: float) -> set[Address]:
    answered: set[Address] = set()
    with ExitStack() as held, selectors.DefaultSelector() as selector:
        for address in addresses:
            with suppress(OSError, UnicodeError):  # no address, or no way there
                connection = held.enter_context(_begun(address))
                selector.register(connection, selectors.EVENT_WRITE, (address, connection))
        until = time.monotonic() + seconds
        while selector.get_map() and (left := until - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                address, connection = key.data
                selector.unregister(connection)
                if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    answered.add(address)
    return answered


def _begun(address: Address) -> socket.socket:
    """Return a socket that is about to be connected to `address`."""
    family, kind, protocol, _, to = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    connection = socket.socket(family, kind, protocol)
    connection.settimeout(0.0)
    connection.connect_ex(to)
    return connection
