"""A program of somebody else's, run to its end: what it says, and how it ends."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


def run(command: Sequence[str], text: str = "", seconds: float | None = None) -> tuple[int, str]:
    """Return the status of a command that reads `text`, and all that it wrote.

    Raises:
        OSError: It can't be run.
        subprocess.TimeoutExpired: It has not ended within so many `seconds`, and is killed.
    """
    done = subprocess.run(  # noqa: S603 - whoever owns the pipeline, or the fleet, names it
        command,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )
    return done.returncode, done.stdout
