"""Where rank 0 of a gang is met: a port that is opened when its address is told, and then kept.

A port that was only seen to be free may be somebody else's by the time the gang comes together,
which is after imports and inputs. Who comes early waits in the line of the open port.
"""

from __future__ import annotations

import socket

_BACKLOG = 4096  # all workers of a large gang at once
_kept: dict[str, socket.socket] = {}


def keep_open(host: str) -> str:
    """Open a free port on the address `host` of this machine, and return `HOST:PORT` of it."""
    v6 = ":" in host
    family = socket.AF_INET6 if v6 else socket.AF_INET
    server = socket.create_server((host, 0), family=family, backlog=_BACKLOG)
    port = int(server.getsockname()[1])
    address = f"[{host}]:{port}" if v6 else f"{host}:{port}"
    _kept[address] = server
    return address


def free(host: str) -> str:
    """Return `HOST:PORT` of a port of `host` that is free now: whoever opens it first has it."""
    with socket.create_server((host, 0)) as server:
        return f"{host}:{server.getsockname()[1]}"


def take(address: str) -> socket.socket | None:
    """Return the open port of `address`, which is then the caller's; `None` where none is kept."""
    return _kept.pop(address, None)


def close(address: str) -> None:
    """Close the port of `address`, unless somebody took it."""
    server = take(address)
    if server is not None:
        server.close()


def interface_to(host: str) -> str:
    """Return the name of the interface by which `host` is reached; empty where that is unknown."""
    import psutil

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # sends nothing: it only finds the route
            ours = probe.getsockname()[0]
    except OSError:
        return ""
    named = psutil.net_if_addrs().items()
    has = (name for name, all_of in named if ours in {a.address.split("%")[0] for a in all_of})
    return next(has, "")
