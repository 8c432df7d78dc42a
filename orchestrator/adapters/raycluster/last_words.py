"""The failure that a worker told last, kept beside its own output until its process works anew.

A process that has told it ends soon after, and what it sent may be lost on the way: by then Ray
knows no more than that the process is gone. What was written before it was sent outlives that.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.messages import Failed
from orchestrator.node.masking import masked

_STDERR = 2
_ITS_OWN_ALONE = 0o600


def forget() -> None:
    """Take away what this process told as the worker that it was before."""
    with suppress(OSError):
        output = _output()
        if output is not None:
            _beside(output).unlink()


def keep(batch: Sequence[object], secrets: Iterable[str]) -> None:
    """Write down the failure that is the last of `batch`, if it is one, without `secrets`."""
    if not batch or not isinstance(batch[-1], Failed):
        return
    content = json.dumps(asdict(masked(batch[-1], secrets)))
    with suppress(OSError):  # a full disk: it is sent all the same
        output = _output()
        if output is not None:
            kept = _beside(output)
            kept.touch(_ITS_OWN_ALONE)
            kept.write_text(content)


def last_failure(output: Path) -> Failed | None:
    """Return the failure that who wrote `output` told last, if it told one."""
    try:
        known = json.loads(_beside(output).read_bytes())
    except (OSError, ValueError):  # none, or one that was cut off
        return None
    fields = known["failure"]
    return Failed(Failure(**{**fields, "kind": FailureKind(fields["kind"])}), known["at"])


def _output() -> Path | None:
    """Return the file that takes what this process writes; `None` where that is no file."""
    status = os.fstat(_STDERR)
    if not stat.S_ISREG(status.st_mode) or not status.st_nlink:
        return None
    return Path(f"/proc/self/fd/{_STDERR}").readlink()


def _beside(output: Path) -> Path:
    return output.with_name(f"{output.name}.json")
