"""What a managed cluster takes of this machine: a short folder, and free ports."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from orchestrator.core.errors import ClusterError
from orchestrator.supervisor import file_modes

HOST = "127.0.0.1"
_PORTS = range(20_000, 32_000)
_MOST_PORTS = 256
_LONGEST_TEMPORARY = 50  # bytes


def root(home: Path) -> Path:
    """Return a short folder, for the names of sockets in it may have 107 bytes at most."""
    digest = hashlib.sha256(str(home.absolute()).encode()).hexdigest()[:10]
    short = Path("/tmp")  # noqa: S108 - ours alone, as checked below
    folder = (short if short.is_dir() else Path(tempfile.gettempdir())) / f"orch-{digest}"
    with suppress(FileExistsError):
        folder.mkdir(mode=file_modes.FOLDER)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ClusterError(f"folder {str(folder)!r} belongs to somebody else; remove it")
    return file_modes.private_folder(folder)


def short_temporary(root: Path) -> str:
    """Return the folder for temporary files, by a link in `root` where its own name is long.

    Ray and torch put sockets there, whose names may have 107 bytes at most.
    """
    own = tempfile.gettempdir()
    if len(os.fsencode(own)) <= _LONGEST_TEMPORARY:
        return own
    link = root / "tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(own)
    return str(link)


def free_ports() -> Iterator[int]:
    """Yield ports that are free, no two alike.

    They lie below those that systems give to outgoing connections, and not where others of this
    machine look first.
    """
    with ExitStack() as held:
        ports = []
        for number in secrets.SystemRandom().sample(_PORTS, len(_PORTS)):
            with suppress(OSError):
                ports.append(held.enter_context(socket.create_server((HOST, number))))
            if len(ports) == _MOST_PORTS:
                break
        numbers = [int(server.getsockname()[1]) for server in ports]
    yield from numbers
