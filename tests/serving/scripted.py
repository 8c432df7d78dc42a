"""A replica that does what a test says with each connection, byte by byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
WHOLE = JSON + b'content-length: 15\r\n\r\n{"whole": true}'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass
class Scripted:
    """What it was asked, and where it listens."""

    url: str
    asked: list[bytes] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)


Act = Callable[[socket.socket, Scripted], None]


@contextmanager
def scripted(act: Act) -> Iterator[Scripted]:
    """Read one request of each connection, `act`, and close it."""
    listener = socket.create_server(("127.0.0.1", 0))
    found = Scripted(f"http://127.0.0.1:{listener.getsockname()[1]}")
    thread = threading.Thread(target=_accept, args=(listener, act, found))
    thread.start()
    try:
        yield found
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _accept(listener: socket.socket, act: Act, found: Scripted) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            found.asked.append(connection.recv(1 << 16))
            act(connection, found)


def sends(*parts: bytes) -> Act:
    """Send `parts` and close."""

    def act(connection: socket.socket, found: Scripted) -> None:
        for part in parts:
            connection.sendall(part)

    return act


def waits(*parts: bytes) -> Act:
    """Send `parts`, then wait until the other side leaves."""

    def act(connection: socket.socket, found: Scripted) -> None:
        for part in parts:
            connection.sendall(part)
        connection.settimeout(10)
        if _until_closed(connection):
            found.left.set()

    return act


def _until_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
