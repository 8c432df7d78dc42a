"""Jobs that do next to nothing: for smoke tests and to measure what the control plane costs.

Only the standard library is imported here, so that starting one costs nothing but the start.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from orchestrator.job import JobContext, Metrics


def noop(ctx: JobContext) -> Metrics:
    """Write where this ran, and nothing else."""
    if ctx.rank == 0:
        facts = {"stage": ctx.stage, "pool": ctx.hardware.pool, "workers": ctx.world_size}
        (ctx.output / "noop.json").write_text(json.dumps(facts, sort_keys=True) + "\n")
    return {}


def count(ctx: JobContext, *, to: int = 10, checkpoint_every: int = 0) -> Metrics:
    """Count to a number, a step at a time, from the newest checkpoint if there is one."""
    latest = ctx.latest_checkpoint()
    first = int((latest.path / "count.txt").read_text()) if latest else 0
    for step in range(first + 1, to + 1):
        ctx.metrics({"count/value": float(step)}, step=step)
        ctx.progress(step, to)
        if checkpoint_every and step % checkpoint_every == 0:
            ctx.save_checkpoint(step, partial(_write, step if ctx.rank == 0 else None))
    if ctx.rank == 0:
        _write(to, ctx.output)
    return {"count/value": float(to), "count/first": float(first)}


def _write(value: int | None, folder: Path) -> None:
    if value is not None:
        (folder / "count.txt").write_text(f"{value}\n")
