"""What was saved can be read back at once, by every worker of the gang."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orchestrator.adapters.clock import SystemClock
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed, LogLine, Message
from tests.worker.conftest import Bench

JOBS = """
    def job(ctx):
        text = f"by {ctx.rank}"
        ctx.save_checkpoint(4, lambda folder: (folder / "w").write_text(text))
        found = ctx.saved_checkpoint(4)
        ctx.log(f"{found.step}: {[(shard / 'w').read_text() for shard in found.shards]}")

    def asks_for_another(ctx):
        ctx.save_checkpoint(4, lambda folder: (folder / "w").write_text("x"))
        ctx.saved_checkpoint(3)

    def has_saved_none(ctx):
        ctx.saved_checkpoint(3)
    """


def run(bench: Bench, size: int) -> list[list[Message]]:
    """Run all workers, on real time: they wait for one another."""
    bench.write(JOBS)
    bench.clock = SystemClock()
    return bench.together(bench.request("job", needs=Needs(workers=size)))


def lines(messages: Sequence[Message]) -> list[str]:
    return [message.text for message in messages if isinstance(message, LogLine)]


def test_every_worker_reads_back_what_all_of_them_saved(bench: Bench) -> None:
    whole = ["4: ['by 0', 'by 1']"]
    assert [lines(messages) for messages in run(bench, 2)] == [whole, whole]


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("asks_for_another", "saved_checkpoint(3): the last save of this attempt is of step 4"),
        ("has_saved_none", "saved_checkpoint(3): the last save of this attempt is of none"),
    ],
)
def test_only_the_last_one_can_be_read(bench: Bench, job: str, said: str) -> None:
    [*_, last] = bench.messages(JOBS, job=job)
    assert isinstance(last, Failed)
    assert said in last.failure.evidence
