"""Delay and loss between ports of a bridge, in user space: kernels may lack netem.

    python relay.py MILLISECONDS LOSS_PERCENT PORT:PEER...

Whole frames go from each port to its peer and back, with the header of segmentation offload.
"""

import random
import select
import socket
import sys
import time
from collections import deque

ETH_P_ALL = 3
SOL_PACKET, PACKET_VNET_HDR, PACKET_OUTGOING = 263, 15, 4
SO_RCVBUFFORCE = 33
FRAME = 70_000
AT_ONCE = 64
IDLE = 1.0


def port(name: str) -> socket.socket:
    """Return a socket that takes every frame of an interface."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
    opened.bind((name, 0))
    opened.settimeout(0)
    return opened


def frames(source: socket.socket, loss: float) -> list[bytes]:
    """Return what has come in at a port, less what is lost."""
    arrived: list[bytes] = []
    for _ in range(AT_ONCE):
        try:
            frame, address = source.recvfrom(FRAME)
        except OSError:
            break
        if address[2] != PACKET_OUTGOING and random.random() >= loss:  # noqa: S311 - no secret
            arrived.append(frame)
    return arrived


def main() -> None:
    """Relay until the process is ended."""
    delay, loss = float(sys.argv[1]) / 1000, float(sys.argv[2]) / 100
    pairs = [tuple(map(port, pair.split(":"))) for pair in sys.argv[3:]]
    peers = {a.fileno(): (a, b) for pair in pairs for a, b in (pair, pair[::-1])}
    poll = select.epoll()
    for descriptor in peers:
        poll.register(descriptor, select.EPOLLIN)
    on_the_way: deque[tuple[float, socket.socket, bytes]] = deque()
    print("ready", flush=True)
    while True:
        wait = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else IDLE
        for descriptor, _ in poll.poll(wait):
            source, target = peers[descriptor]
            due = time.monotonic() + delay
            on_the_way.extend((due, target, frame) for frame in frames(source, loss))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, target, frame = on_the_way.popleft()
            try:
                target.send(frame)
            except OSError as error:  # its interface is down
                print("lost", len(frame), error, flush=True)


if __name__ == "__main__":
    main()
