"""Ways to fill an artifact store, and to look into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.core.artifact import MANIFEST_NAME, ArtifactRef
from orchestrator.node.scratch import LOCK

FILES = {"config.json": b"{}", "weights/a.bin": b"a" * 100, "weights/b.bin": b"b" * 100}


def put(
    store: FsspecArtifactStore, name: str = "r/train/1", files: dict[str, bytes] | None = None
) -> ArtifactRef:
    folder = store.scratch(name)
    for path, content in (FILES if files is None else files).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return store.commit(folder, name, {"step": "1"})


def contents(folder: Path) -> dict[str, bytes]:
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    found.pop(MANIFEST_NAME)
    return found


def left_over(folder: Path) -> list[Path]:
    """Return what lies in `folder`, but for empty folders and locks of living processes."""
    return [path for path in folder.rglob("*") if not path.is_dir() and path.name != LOCK]


def race_with(monkeypatch: pytest.MonkeyPatch, kind: type, act: Callable[[], object]) -> None:
    """Let somebody `act` right before the store puts its own artifact."""
    put_there = kind.put

    def put_late(self: object, folder: Path, name: str, manifest: bytes) -> None:
        monkeypatch.setattr(kind, "put", put_there)
        act()
        put_there(self, folder, name, manifest)

    monkeypatch.setattr(kind, "put", put_late)
