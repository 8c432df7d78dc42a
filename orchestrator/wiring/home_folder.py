"""The home: the folder that holds all state, and what to say where it can't."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from orchestrator.core.errors import StoreError, shown

HOME_VARIABLE = "ORCHESTRATOR_HOME"
PROBE = ".writable"
_ELSEWHERE = f"set {HOME_VARIABLE} to a folder that can be written"
_WAYS_OUT = {
    errno.EACCES: f"let this user write there, or {_ELSEWHERE}",
    errno.EPERM: f"let this user write there, or {_ELSEWHERE}",
    errno.ENAMETOOLONG: f"set {HOME_VARIABLE} to a shorter path",
    errno.ENOSPC: f"free some space, or set {HOME_VARIABLE} to a folder on another disk",
    errno.EDQUOT: f"raise the quota, or set {HOME_VARIABLE} to a folder on another disk",
}


def home_path() -> Path:
    """Return the folder that holds all state, which need not be there yet."""
    return Path(os.environ.get(HOME_VARIABLE) or ".orchestrator").absolute()


def home() -> Path:
    """Return the folder that holds all state: `$ORCHESTRATOR_HOME`, or `.orchestrator` here.

    Raises:
        StoreError: It can't be made, or not be written.
    """
    at = home_path()
    try:
        at.mkdir(mode=0o700, parents=True, exist_ok=True)  # others have no business in it
        if not os.access(at, os.R_OK | os.W_OK | os.X_OK):
            (at / PROBE).touch()  # which says why not
            (at / PROBE).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(_of_home(at, error)) from error
    return at


def told(error: OSError) -> str:
    """Return what the system refused, in a line: of the home, or of another file."""
    reason = error.strerror or str(error)
    if error.filename is None:
        return reason
    at = home_path()
    path = Path(os.fsdecode(error.filename))
    return _of_home(at, error) if path.is_relative_to(at) else f"{shown(str(path))}: {reason}"


def _of_home(at: Path, error: OSError) -> str:
    file = error.errno in {errno.EEXIST, errno.ENOTDIR}
    reason = "it is a file, or would lie in one" if file else error.strerror
    way = _WAYS_OUT.get(error.errno or 0, _ELSEWHERE)
    path = Path(os.fsdecode(error.filename or at))
    inside = path.is_relative_to(at) and path != at and path.name != PROBE
    where = f" at {shown(str(path.relative_to(at)))}" if inside else ""
    return f"the home {shown(str(at))} can't hold the state: {reason}{where}; {way}"
