"""The home: the folder that holds all state, and what to say where it can't."""

from __future__ import annotations

import errno
import logging
import os
import secrets
from contextlib import suppress
from functools import cache
from pathlib import Path

from orchestrator.core.errors import StoreError, shown
from orchestrator.core.text import storable
from orchestrator.supervisor import file_modes

logger = logging.getLogger(__name__)
HOME_VARIABLE = "ORCHESTRATOR_HOME"
SECRET_VARIABLE = "ORCHESTRATOR_SECRET"  # noqa: S105 - a name
SHORTEST_SECRET = 16
PROBE = ".writable"
_USUAL = ".orchestrator"
_WRITE = 0o022  # of others
_ELSEWHERE = f"set {HOME_VARIABLE} to a folder that can be written"
_WAYS_OUT = {
    errno.EACCES: f"let this user write there, or {_ELSEWHERE}",
    errno.EPERM: f"let this user write there, or {_ELSEWHERE}",
    errno.ENAMETOOLONG: f"set {HOME_VARIABLE} to a shorter path",
    errno.ENOSPC: f"free some space, or set {HOME_VARIABLE} to a folder on another disk",
    errno.EDQUOT: f"raise the quota, or set {HOME_VARIABLE} to a folder on another disk",
}


def check_working_folder() -> None:
    """Refuse to work in a folder that is not there any more.

    Raises:
        StoreError: It is gone, or can't be reached.
    """
    try:
        Path.cwd()
    except OSError as error:
        what = f"the working folder can't be used: {error.strerror}"
        raise StoreError(f"{what}; change to another one") from error


def home_path() -> Path:
    """Return the folder that holds all state, which need not be there yet."""
    return Path(os.environ.get(HOME_VARIABLE) or _USUAL).absolute()


def home() -> Path:
    """Return the folder that holds all state: `$ORCHESTRATOR_HOME`, or `.orchestrator` here.

    Raises:
        StoreError: It can't be made, or not be written.
    """
    folder = home_path()
    if not storable(str(folder)):
        what = f"the home {shown(str(folder))} can't hold the state: its path is no text in UTF-8"
        raise StoreError(f"{what}; {_ELSEWHERE}")
    try:
        folder.mkdir(mode=file_modes.FOLDER, parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            (folder / PROBE).touch()  # which says why not
            (folder / PROBE).unlink(missing_ok=True)
        _keep_private(folder)
    except OSError as error:
        raise StoreError(_of_home(folder, error)) from error
    return folder


def _keep_private(folder: Path) -> None:
    """Have others keep out of a home that was there, or of what is in it.

    One of the usual name, or an empty one, is narrowed. Another folder may be meant for others
    too: it stays as it is, and a line says so where they could put something else in its place.
    """
    if not file_modes.open_to_others(folder):
        return
    if folder.name == _USUAL or not any(folder.iterdir()):
        file_modes.narrow(folder, file_modes.FOLDER)
    mode = file_modes.open_to_others(folder)
    if mode:
        file_modes.private_folder(folder / "artifacts")
    if mode & _WRITE:
        _warn(folder, mode)


@cache
def _warn(folder: Path, mode: int) -> None:
    what = f"others can write to the home {shown(str(folder))} (mode {mode:04o})"
    logger.warning("%s, and so put other state in its place: `chmod 700` it", what)


def replica_secret(home: Path) -> bytes:
    """Return what tokens of replicas are sealed with: `$ORCHESTRATOR_SECRET`, or the home's own.

    Hosts that share a database share the variable too; a home makes its own once.

    Raises:
        StoreError: The variable is too short for a secret, or the file can't be made or read.
    """
    given = os.environ.get(SECRET_VARIABLE, "")
    if given:
        if len(given) < SHORTEST_SECRET:
            what = f"{SECRET_VARIABLE} has {len(given)} characters, not {SHORTEST_SECRET} or more"
            raise StoreError(f"{what}; set it to the output of `openssl rand -hex 32`")
        return given.encode()
    try:
        return random_once(home / "secret", 32).encode()
    except OSError as error:
        raise StoreError(refusal(error)) from error


def random_once(path: Path, size: int) -> str:
    """Return the random bytes in the file `path`, as hex; its owner's alone, made if not there."""
    if not path.exists():
        draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(size))
        with suppress(FileExistsError):  # somebody else was first: whole, or not there
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text()


def home_id(home: Path) -> str:
    """Return the identity of `home`, which is made when it is first asked for."""
    return random_once(home / "id", 4)


def home_id_if_any(home: Path) -> str:
    """Return the identity of `home`; empty where nothing has asked for it yet."""
    return home_id(home) if (home / "id").exists() else ""


def refusal(error: OSError) -> str:
    """Return what the system refused, in a line: of the home, or of another file."""
    reason = error.strerror or str(error)
    if error.filename is None:
        return reason
    folder = home_path()
    path = Path(os.fsdecode(error.filename))
    if path.is_relative_to(folder):
        return _of_home(folder, error)
    return f"{shown(str(path))}: {reason}"


def _of_home(folder: Path, error: OSError) -> str:
    file = error.errno in {errno.EEXIST, errno.ENOTDIR}
    reason = "it is a file, or would lie in one" if file else error.strerror
    way_out = _WAYS_OUT.get(error.errno or 0, _ELSEWHERE)
    path = Path(os.fsdecode(error.filename or folder))
    inside = path.is_relative_to(folder) and path != folder and path.name != PROBE
    where = f" at {shown(str(path.relative_to(folder)))}" if inside else ""
    return f"the home {shown(str(folder))} can't hold the state: {reason}{where}; {way_out}"
