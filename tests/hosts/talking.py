"""A job that says what it is given."""

from __future__ import annotations

import os

from orchestrator.job import JobContext


def talk(ctx: JobContext) -> None:
    """Print whether the worker sees what its controller was handed."""
    ctx.progress(1, 2)
    seen = sorted(name for name in os.environ if name.startswith(("ORCHESTRATOR_", "AWS_")))  # noqa: TID251 - what is asked
    print("the worker sees", *seen)
    ctx.progress(2, 2)
