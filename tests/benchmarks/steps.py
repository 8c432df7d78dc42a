"""A job that steps through time: what it costs to tell of a step."""

from __future__ import annotations

from time import perf_counter

from orchestrator.job import JobContext, Metrics

STEP_SECONDS = 0.01


def tell(ctx: JobContext, *, steps: int) -> Metrics:
    """Compute for ten milliseconds a step, tell four metrics and the progress, time both."""
    values = {"loss": 1.0, "lr": 1e-3, "grad_norm": 0.5, "tokens_per_second": 1e4}
    computing = telling = 0.0
    for step in range(1, steps + 1):
        began = perf_counter()
        while (computed := perf_counter()) - began < STEP_SECONDS:
            pass
        ctx.metrics(values, step=step)
        ctx.progress(step, steps)
        computing += computed - began
        telling += perf_counter() - computed
    return {"computing": computing / steps, "telling": telling / steps}
