"""A job that steps through time: what it costs to tell of a step.

In CPU time, for other work on the machine stretches the wall time of either part at random.
"""

from __future__ import annotations

from time import process_time, thread_time

from orchestrator.job import JobContext, Metrics

STEP_SECONDS = 0.01


def tell(ctx: JobContext, *, steps: int) -> Metrics:
    """Compute for ten milliseconds a step; tell four metrics and the progress.

    `telling` is all else that the process did meanwhile: the calls, and whoever reads and packs.
    """
    values = {"loss": 1.0, "lr": 1e-3, "grad_norm": 0.5, "tokens_per_second": 1e4}
    computing, began = 0.0, process_time()
    for step in range(1, steps + 1):
        step_began = thread_time()
        while (computed := thread_time() - step_began) < STEP_SECONDS:
            pass
        ctx.metrics(values, step=step)
        ctx.progress(step, steps)
        computing += computed
    telling = process_time() - began - computing
    return {"computing": computing / steps, "telling": telling / steps}
