"""Two hosts on this machine: each with a network, an address and a name of its own.

They share the file system; what is found by loopback or by the name of a host is told apart.
Needs root and iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NET = "10.178.0"


@dataclass(frozen=True)
class Host:
    """A host: `h0` at 10.178.0.1, and so on."""

    name: str
    address: str
    space: str

    def command(self, *words: str) -> list[str]:
        """Return what runs `words` there."""
        named = ("sh", "-c", 'hostname "$0" && exec "$@"', self.name, *words)
        return ["ip", "netns", "exec", self.space, "unshare", "--uts", *named]

    def run(
        self, words: Sequence[str], env: Mapping[str, str], folder: Path
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end."""
        return subprocess.run(
            self.command(*words),
            env={**os.environ, **env},  # noqa: TID251 - a test's own
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


def lacking() -> str:
    """Return why there can be no hosts here; empty where they can be made."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    if not shutil.which("ip") or not shutil.which("unshare"):
        return "needs ip and unshare, of iproute2 and util-linux"
    space = f"o{os.getpid()}t"
    made = subprocess.run(["ip", "netns", "add", space], capture_output=True, check=False)  # noqa: S607 - as above
    if made.returncode:
        return "network namespaces can't be made here"
    _ip("netns", "del", space)
    return ""


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Have two hosts, joined by a cable."""
    ends = [f"o{os.getpid()}h{number}" for number in range(2)]
    hosts = [Host(f"h{i}", f"{NET}.{i + 1}", space) for i, space in enumerate(ends)]
    try:
        for space in ends:
            _ip("netns", "add", space)
        first, second = ends
        _ip("link", "add", "eth0", "netns", first, "type", "veth", "peer", "eth0", "netns", second)
        for host in hosts:
            within = ("-n", host.space)
            _ip(*within, "addr", "add", f"{host.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip(*within, "link", "set", device, "up")
        yield hosts[0], hosts[1]
    finally:
        for space in ends:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)  # noqa: S607 - as above


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)  # noqa: S607 - as above
