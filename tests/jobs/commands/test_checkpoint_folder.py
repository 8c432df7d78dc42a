"""A checkpoint is copied again after a copy that has failed."""

from __future__ import annotations

import math
import resource
from pathlib import Path

import pytest

from jobs.commands.checkpoint_folder import CheckpointFolder, Layout
from tests.jobs.local_context import LocalContext

SIZE = 4096


@pytest.mark.parametrize("lives", [[], ["7.pt"]], ids=["ended", "running"])
def test_what_found_no_room_is_copied_again(tmp_path: Path, lives: list[str]) -> None:
    layout = Layout(pattern="{step}.pt")
    ctx = LocalContext(folder=tmp_path)
    at = tmp_path / "work" / "checkpoints"
    folder = CheckpointFolder(at, layout, ctx)
    (at / "7.pt").write_bytes(b"x" * SIZE)
    written = folder._newest(layout, math.inf)
    assert written is not None
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            folder._copied(written, layout, ended=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    copy = folder._copied(written, layout, ended=not lives)
    assert copy is not None
    assert (copy / "7.pt").stat().st_size == SIZE
    assert [path.name for path in at.iterdir()] == lives
