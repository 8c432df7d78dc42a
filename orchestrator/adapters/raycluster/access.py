"""How this process gets into a cluster: its address, and the token of a managed one.

Ray takes credentials from the environment alone, so using the token of a managed cluster means
setting them there. A cluster that isn't ours is reached with what the user's environment says.
A managed one is on loopback alone, as Ray's are where it knows no clusters of several hosts.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.adapters.rayqueries import gcs
from orchestrator.core.address_passwords import password_problems
from orchestrator.core.errors import ClusterError, shown

NAMESPACE = "orchestrator"
NO_PASSWORD = "leave it out: Ray takes a token alone, by RAY_AUTH_TOKEN_PATH"  # noqa: S105 - no password
_LAST_PORT = 65_535
_SEVERAL_HOSTS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # Ray looks at it on Linux, too
_PROBE_SECONDS = 3.0
_RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"
_RAYS_PATIENCE = 60.0
_PAUSES = (1.0, 3.0)
SECONDS_TO_LEAVE = 60.0
ASKS = "asks Ray: "  # how threads are called that do
_SLOW = re.compile(r"No node info found|timed out", re.IGNORECASE)


def make_token(path: Path) -> None:
    """Create the token file of a managed cluster, readable by its owner alone."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def managed_environment(path: Path) -> dict[str, str]:
    """Return the variables by which a Ray process is on loopback, and uses the token in `path`."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path), _SEVERAL_HOSTS: "0"}


def use_token(path: Path) -> None:
    """Let this process, and those that it starts, into the managed cluster of the token."""
    wanted = managed_environment(path)
    if all(os.environ.get(name) == value for name, value in wanted.items()):  # noqa: TID251 - see above
        return
    os.environ.update(wanted)  # noqa: TID251 - see above
    os.environ.pop("RAY_AUTH_TOKEN", None)  # noqa: TID251 - it would win over the file
    if "ray" in sys.modules:
        from ray import _raylet  # its stub lacks the two
        from ray._private import ray_constants

        ray_constants.ENABLE_RAY_CLUSTER = False
        _raylet.Config.initialize("")  # type: ignore[attr-defined]
        _raylet.AuthenticationTokenLoader.instance().reset_cache()  # type: ignore[attr-defined]


def connect(
    address: str,
    patience: float = 0.0,
    *,
    pauses: tuple[float, ...] = _PAUSES,
    admitted: Callable[[str], None] | None = None,
) -> bool:
    """Connect this process to the cluster at `address`; return whether it was not yet.

    Ray ends this process when the head is away for a minute: here for longer than `patience`.
    Whoever asks Ray after the process has left gets an error: Ray's own default is to start a
    cluster on this host then, and to make it that of the process. One that is too busy to let it
    in is asked again after each of `pauses` (seconds); `admitted` raises where it may not join.

    Raises:
        ClusterError: Nothing answers there, or it doesn't let us in.
    """
    import ray
    from ray._private import auto_init_hook

    if ray.is_initialized():
        return False
    auto_init_hook.enable_auto_connect = False
    (admitted or admit)(address)
    seconds = int(patience + _RAYS_PATIENCE)
    os.environ.setdefault(_RECONNECT, str(seconds))  # noqa: TID251 - Ray reads it there alone
    _join(address, pauses)
    _hush()
    return True


def session() -> str:
    """Return what the head calls the cluster that this process is connected to."""
    import ray

    return str(ray.get_runtime_context().get_session_name())


def admit(address: str) -> None:
    """Check that this process can join the cluster at `address`, within seconds.

    Raises:
        ClusterError: Nothing answers there, or it doesn't let us in.
    """
    split(address)
    check(address)
    gcs.admit(address)


def leave(seconds: float = SECONDS_TO_LEAVE) -> bool:
    """Leave the cluster, once no thread of ours asks it any more; return whether that came.

    Ray ends the process of whoever asks while it leaves. So where a thread that is called `ASKS`
    has not ended within `seconds`, the process stays in the cluster until its own end.
    """
    import ray

    until = time.monotonic() + seconds
    asking = [thread for thread in threading.enumerate() if thread.name.startswith(ASKS)]
    for thread in asking:
        thread.join(max(0.0, until - time.monotonic()))
    if any(thread.is_alive() for thread in asking):
        return False
    ray.shutdown()
    return True


def _join(address: str, pauses: tuple[float, ...]) -> None:
    """Join, and try again where a busy machine was too slow for Ray."""
    import ray
    from ray.exceptions import RayError

    for pause in (*pauses, None):
        try:
            ray.init(
                address=address,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
            words = str(error).strip().splitlines()
            line = words[0] if words else type(error).__name__
            if pause is None or not _SLOW.search(str(error)):
                raise ClusterError(f"Ray at {address!r} can't be joined: {line}") from error
            ray.shutdown()
            threading.Event().wait(pause)
        else:
            return


def _hush() -> None:
    """Keep the last words of a killed node out of this process's output: they are in its log."""
    from ray._private import ray_logging

    ray_logging.stdout_deduplicator.skip_re = re.compile("")


def split(address: str) -> tuple[str, int]:
    """Return host and port of `address`.

    Raises:
        ClusterError: It isn't HOST:PORT.
    """
    for problem in password_problems("cluster.address", address, NO_PASSWORD):
        raise ClusterError(str(problem))
    host, colon, port = address.rpartition(":")
    fits = port.isdecimal() and len(port) <= len(str(_LAST_PORT)) and 0 < int(port) <= _LAST_PORT
    if not (host and colon and fits) or "/" in host:
        raise ClusterError(f"cluster.address {shown(address)} is not HOST:PORT of a Ray head node")
    return host.strip("[]"), int(port)


def answers(host: str, port: int, seconds: float) -> bool:
    """Return whether somebody listens at `host` and `port`."""
    try:
        with socket.create_connection((host, port), timeout=seconds):
            return True
    except (OSError, UnicodeError):  # no such name, or none at all
        return False


def is_address(address: str) -> bool:
    """Return whether `address` can be that of a head, or of a cluster's job server."""
    try:
        split(_of_head(address))
    except ClusterError:
        return False
    return True


def _of_head(address: str) -> str:
    """Return HOST:PORT of an address that may be a URL."""
    return re.sub(r"^https?://([^/]*)/?$", r"\1", address)


def check(address: str) -> None:
    """Check that somebody listens at the `address` of a cluster, or of its job server.

    Raises:
        ClusterError: It is no such address, or nobody does.
    """
    host, port = split(_of_head(address))
    if not answers(host, port, _PROBE_SECONDS):
        hint = "check cluster.address or RAY_ADDRESS, or leave both empty for a managed cluster"
        raise ClusterError(f"no Ray head node answers at {address!r}; {hint}")
