"""Which disk a file is on, for whoever has to make room there."""

from __future__ import annotations

from pathlib import Path


def mount_of(path: Path) -> str:
    """Return where the file system is mounted that `path` is on, or would be."""
    path = path.absolute()
    return str(next(folder for folder in (path, *path.parents) if folder.is_mount()))
