from __future__ import annotations

import json
from pathlib import Path

from jobs.noop import count, noop
from tests.jobs.local_context import LocalContext


def test_noop_writes_where_it_ran(tmp_path: Path) -> None:
    ctx = LocalContext(folder=tmp_path)

    assert noop(ctx) == {}
    assert json.loads((ctx.output / "noop.json").read_text())["pool"] == "nvidia"


def test_counting_goes_on_from_the_newest_checkpoint(tmp_path: Path) -> None:
    count(LocalContext(folder=tmp_path), to=4, checkpoint_every=2)
    ctx = LocalContext(folder=tmp_path)

    assert count(ctx, to=6) == {"count/value": 6.0, "count/first": 4.0}
    assert ctx.series("count/value") == [5.0, 6.0]
