"""A run whose controller went with its host goes on by itself: another host's reaper sees to it.

`pytest -s` prints what the user of the run sees.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.states import RunStarted, RunState
from orchestrator.supervisor.record import wait
from tests.hosts.services import at_work
from tests.hosts.site import GANG, SECONDS, STEPS, Site, site, to

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]
JOB_SERVER = ("--dashboard-host=0.0.0.0", "--include-dashboard=true")
GROUPS = """
import ray
from ray.util.placement_group import placement_group_table
ray.init(address="auto", logging_level="ERROR")
print(sorted(g["name"] for g in placement_group_table().values() if g["state"] != "REMOVED"))
"""


@pytest.fixture(scope="module")
def built(logs: Path) -> Iterator[Site]:
    """A head with a job server on host 0, a pool on each of the next, services on the last."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with site(logs, mlflow=False, head=JOB_SERVER, **token) as built:
        built.network.hosts[2].write("steps.py", STEPS)
        yield built


def test_a_run_whose_controllers_host_dies_is_handed_to_the_cluster_by_the_reaper_of_another(
    built: Site,
) -> None:
    head, hopper, atlas, _ = built.network.hosts
    built.do(hopper, "up", "tracking=none")
    built.launch(atlas, *to(400), GANG)
    name = built.until_saved(20).header.run
    built.network.cut(atlas)
    atlas.die()
    died = monotonic()
    built.until_resumed(2)
    print(f"it went on {monotonic() - died:.0f} s after the death of its controller's host")
    status = built.orchestrator(hopper, "status", name).stdout
    assert "the reaper of h1" in status, status
    assert wait(lambda: built.run().done, SECONDS, tick=1.0), built.seen()
    print(built.seen())
    run = built.run()
    assert (run.state, run.epoch) == (RunState.SUCCEEDED, 2)
    lost, last = built.attempts()
    assert [failure.kind for failure in built.failures()] == [FailureKind.CONTROLLER_LOST]
    assert last.pool == "hopper"
    assert (last.resumed or 0) >= max(lost.saved)
    begun = [s.event for s in built.store.events(name) if isinstance(s.event, RunStarted)]
    assert [event.by for event in begun] == ["", "the reaper of h1"]
    assert wait(lambda: not built.store.leases(), 60.0, tick=1.0), built.store.leases()
    assert wait(lambda: not at_work(hopper), 30.0, tick=0.5), "nothing is left"
    assert head.python("-c", GROUPS).stdout == "[]\n"
