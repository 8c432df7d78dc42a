"""Who starts a command, and from which commit; machines need not know either."""

from __future__ import annotations

import getpass
import os
import pwd
import socket
import subprocess
from pathlib import Path

from orchestrator.wiring.home_folder import home_path

SECONDS_FOR_GIT = 5.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = Path("/proc/self/ns/net")


def user() -> str:
    """Return the name of the user; his number where the machine has no name for him."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container that runs under any number
        return f"uid-{os.getuid()}"


def host() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


def machine() -> str:
    """Return `HOST/BOOT NETWORK`: what has one loopback and one set of ports; until it restarts.

    Names of hosts are not unique. Empty parts are of systems that do not say them.
    """
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    network = _NETWORK.readlink().name if _NETWORK.is_symlink() else ""
    return f"{host()}/{boot} {network}".strip()


def provide_user() -> None:
    """Give a user whom the machine does not know a name and a home: libraries ask for both."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", user())
        os.environ.setdefault("HOME", str(home_path()))


def commit() -> str:
    """Return the commit of the working folder; empty where git knows none, or isn't there."""
    try:
        git = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS_FOR_GIT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return git.stdout.strip() if git.returncode == 0 else ""
