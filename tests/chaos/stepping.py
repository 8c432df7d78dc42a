"""A job that steps at a steady pace, as one does whose device works, and times its steps."""

from __future__ import annotations

import time
from statistics import quantiles

from orchestrator.job import JobContext, Metrics


def step(ctx: JobContext, *, steps: int, seconds: float) -> Metrics:
    """Tell four metrics and the progress at each step; return how long steps took."""
    took = []
    for number in range(1, steps + 1):
        began = time.perf_counter()
        time.sleep(seconds)  # noqa: TID251 - the device works, the host waits
        values = {"loss": 4.0 / number, "lr": 1e-3, "grad_norm": 0.5, "tokens": 1.0 * number}
        ctx.metrics(values, step=number)
        ctx.progress(number, steps)
        took.append(time.perf_counter() - began)
    cuts = quantiles(took, n=100)
    return {"p50_ms": 1e3 * cuts[49], "p99_ms": 1e3 * cuts[98], "worst_ms": 1e3 * max(took)}
