"""Hosts whose clocks are a minute ahead or behind: a run keeps its order, its lease and its time.

Whatever is in Python tells the time of its host there: commands, workers, gateways, replicas. The
clocks of the database and of the bucket are right.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.states import RunState
from tests.hosts.clients import asking, new_key
from tests.hosts.echo_pipeline import OPEN, echoes, gateway
from tests.hosts.namespaces import ROOT
from tests.hosts.site import CLOCK, OURS, STEPS, Site, site

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(1200)]
# Of the hosts of the controller, of `hopper` and of `atlas`, in seconds.
CLOCKS = (60, 0, -60)
FOUND_FIRST = "/srv/clock"
PIPELINE = echoes("whole", "train", "{job: steps.steps, role: train, params: {to: 80}}")
WORDS = (
    "pipeline=whole",
    *OURS,
    "jobs.packages=[jobs,steps]",
    "jobs.code=[.]",
    "tracking=none",
    OPEN,
)
SECONDS = 240.0
ROUNDING = 1.0  # seconds


@pytest.fixture
def lab(logs: Path) -> Iterator[Site]:
    path = f"{FOUND_FIRST}:{ROOT}"
    with site(logs, mlflow=False, PYTHONPATH=path) as built:
        head, *nodes = built.network.hosts[:3]
        head.write("my/pipeline/whole.yaml", PIPELINE)
        head.write("steps.py", STEPS)
        for host, seconds in zip((head, *nodes), CLOCKS, strict=True):
            host.write(f"{FOUND_FIRST}/sitecustomize.py", CLOCK.format(seconds=seconds))
        for node in nodes:
            built.servers.restart(node)
        yield built
        built.mend()


def test_a_run_whose_training_host_is_cut_off_keeps_its_lease_and_its_order(lab: Site) -> None:
    head, hopper, atlas, shared = lab.network.hosts
    begun = time.time()  # noqa: TID251 - the clock of this machine is the database's
    launch = lab.launch(head, *WORDS)
    run = lab.until_saved(20).header.run
    lab.network.cut(hopper)
    for host in (head, atlas):  # two minutes apart
        refused = lab.orchestrator(host, "resume", run)
        assert refused.returncode == 1
        assert "has a controller" in refused.stderr, refused.stderr
        assert " on h0" in refused.stderr
    lab.until_resumed(2)
    lab.network.heal(hopper)
    assert launch.finish(SECONDS) == 0, launch.printed()
    ended = time.time()  # noqa: TID251 - likewise
    with asking(shared, "whole", new_key(lab, head), gateway(head)) as loop:
        loop.until_answered(10)
    assert loop.failed() == []

    known = lab.run()
    assert known.state is RunState.SUCCEEDED
    lost, last = lab.attempts()
    assert [failure.kind for failure in lab.failures()] == [FailureKind.NODE_LOST]
    assert (lost.pool, last.pool) == ("hopper", "atlas")
    assert (lost.epoch, last.epoch) == (1, 1), "nobody took the run over"
    assert last.resumed == max(lost.saved)
    at = [stored.at for stored in lab.store.events(run)]
    assert at == sorted(at)
    assert begun - ROUNDING < at[0]
    assert at[-1] < ended + ROUNDING
    print(f"{at[-1] - at[0]:.0f} s by the database, {ended - begun:.0f} s here")
