"""How long it takes to prove an artifact, against hashing its files one after the other."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator import wiring
from tests.benchmarks.table import Row, compare, seconds

FILES, SIZE = 8, 1 << 26


def rows() -> list[Row]:
    """Verify an artifact that was just written, of several files of equal size."""
    with TemporaryDirectory(prefix="bench-") as place:
        store = wiring.artifact_store(Path(place).as_uri())
        folder = store.scratch("model")
        for number in range(FILES):
            (folder / f"{number}.safetensors").write_bytes(os.urandom(SIZE))
        ref = store.commit(folder, "model", {})
        files = sorted(Path(place, "model").glob("*.safetensors"))
        theirs = seconds(lambda: [_hash(file) for file in files])
        ours = seconds(lambda: store.fetch(ref))
    name = f"verify {FILES} files, {FILES * SIZE >> 20} MiB, against hashing each in turn"
    return [compare(name, ours, theirs, goal="ratio <= 0.75")]


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
