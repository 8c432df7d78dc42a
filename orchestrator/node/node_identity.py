"""What a node is told apart by, whatever its name, its labels and how often it was started.

The serial numbers of its chips, where the maker's tool tells them; else the machine: its own id,
its name, and the chips that its bus shows. A node whose parts were exchanged is another one.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from orchestrator.core.spec.hardware import Pool
from orchestrator.core.trust.qualification import not_measured

SECONDS = 30.0  # a driver without persistence starts its chips first
PAUSES = (0.5, 2.0)  # before a tool is asked again that failed: it may have been the moment
_DISPLAY, _ACCELERATOR = "0x03", "0x12"  # classes of devices on a PCI bus
_KINDS = ("vendor", "device", "subsystem_vendor", "subsystem_device")
MACHINE, BUS = Path("/etc/machine-id"), Path("/sys/bus/pci/devices")


def identify(command: Sequence[str]) -> str:
    """Return a short hash of what this node is; `command` prints the serial numbers of chips."""
    facts = serials(command) or [*machine(), *chips()]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def objection(pool: Pool, measured: Sequence[str] | None, name: Callable[[], str]) -> str:
    """Return why this node may not be used; empty where it may. `name` returns its name.

    `measured` are the identities of the nodes that were qualified; with `None` nobody asks.
    """
    if measured is None or identify(pool.accelerator.identity) in measured:
        return ""
    return not_measured(pool.name, [name()])


def serials(command: Sequence[str]) -> list[str]:
    """Return the lines that the maker's tool prints, in order; none where it doesn't tell."""
    for pause in (*PAUSES, None) if command else ():
        try:
            return sorted(_printed(command))
        except OSError:
            break  # it is not there
        except subprocess.SubprocessError:
            if pause is not None:
                threading.Event().wait(pause)
    return []


def _printed(command: Sequence[str]) -> Iterator[str]:
    done = subprocess.run(  # noqa: S603 - the owner of the fleet names it
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS,
        check=True,
    )
    yield from (" ".join(line.split()) for line in done.stdout.splitlines() if line.strip())


def machine(file: Path = MACHINE) -> Iterator[str]:
    """Yield what a machine is called, by those who installed it and by those who use it."""
    with suppress(OSError):
        yield file.read_text("utf-8").strip()
    yield platform.node()


def chips(bus: Path = BUS) -> Iterator[str]:
    """Yield the place and the kind of each chip that a bus shows."""
    for device in sorted(bus.glob("*")):
        with suppress(OSError):
            if (device / "class").read_text("utf-8").startswith((_DISPLAY, _ACCELERATOR)):
                kind = ((device / name).read_text("utf-8").strip() for name in _KINDS)
                yield " ".join((device.name, *kind))
