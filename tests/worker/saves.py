"""Jobs that save checkpoints, and what an attempt of theirs went on from."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

from orchestrator.messages import LogLine, Message
from tests.worker.conftest import Bench

SAVES = """
    import threading
    written, go = threading.Event(), threading.Event()

    def job(ctx, *, steps):
        begin = ctx.latest_checkpoint()
        ctx.log("from " + str(begin and (begin.step, (begin.path / "w").read_text())))
        for step in range(begin.step if begin else 0, steps):
            ctx.save_checkpoint(
                step + 1, lambda folder, step=step: (folder / "w").write_text(f"w{step}")
            )

    def anew(ctx):
        ctx.save_checkpoint(1, lambda folder: (folder / "w").write_text("new"))

    def saves_twice(ctx):
        for step in (1, 2):
            ctx.save_checkpoint(step, lambda f, step=step: (f / "w").write_text(f"w{step - 1}"))

    def too_low(ctx):
        ctx.save_checkpoint(ctx.latest_checkpoint().step, print)

    def slow(ctx):
        begin = ctx.latest_checkpoint()
        def write(folder):
            (folder / "w").write_text("stale")
            written.set()
            go.wait(10)
        ctx.save_checkpoint(begin.step + 1 if begin else 1, write)
        written.wait(10)
        ctx.log("begun")
    """


def went_on_from(bench: Bench, *, steps: int, attempt: int, **changes: object) -> str:
    [line] = bench.lines(SAVES, params={"steps": steps}, attempt=attempt, **changes)
    return line.removeprefix("from ")


def begin(bench: Bench, attempt: int) -> tuple[Iterator[Sequence[Message]], ModuleType]:
    """Let attempt `attempt` come to the middle of a save."""
    bench.write(SAVES)
    batches = bench.stream(bench.request("slow", attempt=attempt, kill_after=0.0))
    while LogLine(0, "begun") not in next(batches):
        pass
    return batches, sys.modules[f"{bench.package}.jobs"]
