"""A gang over two nodes of a pool: where its workers lie, that they hear each other, and go on.

`pytest -s` prints what the user of the run sees.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path

import pytest

from orchestrator.core.failures.kinds import FailureKind
from tests.hosts.services import at_work
from tests.hosts.site import Site, site, to

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(600)]
WIDE = (
    "fleet.pools.hopper.nodes=2",
    "fallbacks.train=[]",
    "pipeline.stages.train.needs.workers=4",
)
MILLISECONDS, PERCENT = 105, 1
# Each worker tells its place and its chip, and adds up over all of them at each step.
STEPS = """\
import os
import time
from functools import partial

import torch
import torch.distributed as dist

PLACE = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "LAB_A_VISIBLE"
)


def steps(ctx, *, to):
    saved = ctx.latest_checkpoint()
    begun = int((saved.path / "step").read_text()) if saved else 0
    print("place", *(os.environ[name] for name in PLACE), flush=True)
    for step in range(begun + 1, to + 1):
        time.sleep(0.1)
        total = torch.tensor([float(ctx.rank + 1)])
        dist.all_reduce(total)
        ctx.metrics({"train/loss": total.item()}, step=step)
        if step % 5 == 0:
            ctx.save_checkpoint(step, partial(_write, step))
    (ctx.output / "total").write_text(str(total.item()))
    return {"total": total.item()}


def _write(step, folder):
    (folder / "step").write_text(str(step))
"""
PLACES = {("0", "4", "0", "2", "0", "0"), ("1", "4", "1", "2", "0", "1")} | {
    ("2", "4", "0", "2", "1", "0"),
    ("3", "4", "1", "2", "1", "1"),
}


@pytest.fixture(scope="module")
def built(logs: Path) -> Iterator[Site]:
    """The head on host 0, two nodes of one pool on the next, services on the last."""
    bare = ("--include-dashboard=false",)
    with site(logs, pools={"hopper": [1, 2]}, mlflow=False, head=bare) as built:
        built.network.hosts[0].write("steps.py", STEPS)
        yield built


@pytest.mark.parametrize("slow", [False, True], ids=["at once", "105 ms and 1 % loss"])
def test_a_gang_lies_by_node_and_goes_on_after_the_loss_of_a_worker(
    lab: Site, *, slow: bool
) -> None:
    head, _, second, _ = lab.network.hosts
    with lab.network.slow(MILLISECONDS, PERCENT) if slow else nullcontext():
        launch = lab.launch(head, *to(60), *WIDE)
        run = lab.until_saved(10).header.run
        os.kill(at_work(second)[-1], signal.SIGKILL)
        lab.finished(launch)
    lost, last = lab.attempts()
    assert [failure.kind for failure in lab.failures()] == [FailureKind.WORKER_LOST]
    assert last.resumed == max(lost.saved)
    for attempt in (lost, last):
        assert [len(list(workers)) for _, workers in groupby(attempt.nodes)] == [2, 2]
    said = re.findall(r"place (\d) (\d) (\d) (\d) (\d) (\d)", lab.do(head, "logs", run))
    assert set(said) == PLACES
    assert lab.run().stages["train"].metrics["total"] == 1 + 2 + 3 + 4
