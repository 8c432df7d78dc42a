"""With which code a worker's process ended itself at once: Ray sees no more than that it is gone.

What Python ends by `os._exit` says so in the last line of its own output, which outlives it. Where
native code calls `exit(n)` no Python runs any more: there the C library (`on_exit`, glibc alone)
writes the code, as one byte, to a file beside that output. Nobody sees an `_exit(n)` of native
code: it can't be told from SIGKILL.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

_STDERR = 2
_LINE = re.compile(r"(?:os\._exit|exit)\((-?\d+)\) ended this process$")
_UNBUFFERED = 2  # _IONBF of stdio.h, on Linux
_notes: list[int] = []  # the descriptor of this process's own, once it has one


@contextmanager
def announced() -> Iterator[None]:
    """Have this process, but not its children, write with which code it ends itself."""
    with suppress(OSError, AttributeError):  # no file, or another C library
        _note_native()
    leave, owner = os._exit, os.getpid()

    def tell_and_leave(status: int) -> NoReturn:
        if os.getpid() == owner:
            with suppress(OSError):  # on a line of its own, whatever was written before
                os.write(_STDERR, f"\nos._exit({status}) ended this process\n".encode())
        leave(status)

    os._exit = tell_and_leave
    try:
        yield
    finally:
        os._exit = leave


def _note_native() -> None:
    """Have the C library write the code of `exit(n)`: `fputc(code, note)`, first of all."""
    output = os.fstat(_STDERR)
    if _notes or not stat.S_ISREG(output.st_mode) or not output.st_nlink:  # deleted: nowhere
        return
    libc = ctypes.CDLL(None)
    on_exit = libc.on_exit
    path = Path(f"/proc/self/fd/{_STDERR}").readlink()
    note = os.open(_beside(path), os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    _notes.append(note)
    os.register_at_fork(after_in_child=_note_nothing)
    libc.fdopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(libc.fdopen(note, b"w"))
    libc.setvbuf(file, None, _UNBUFFERED, ctypes.c_size_t(0))
    on_exit(ctypes.cast(libc.fputc, ctypes.c_void_p), file)


def _note_nothing() -> None:
    """Have a child write nothing: the note is its parent's."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _notes[0], inheritable=False)
        os.close(nowhere)


def exit_lines(output: Path) -> list[str]:
    """Return the line that says with which code `exit` ended who wrote `output`, if it did."""
    try:
        noted = _beside(output).read_bytes()
    except OSError:
        return []
    return [f"exit({noted[-1]}) ended this process"] if noted else []


def code(line: str) -> int | None:
    """Return the code with which the process ended itself, if `line` says so."""
    match = _LINE.match(line)
    return int(match[1]) if match else None


def _beside(output: Path) -> Path:
    return output.with_name(f"{output.name}.exit")
