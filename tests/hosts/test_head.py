"""The head of the cluster dies and is started anew, while a run trains and an endpoint is asked.

`pytest -s` prints what the user of the run sees.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from orchestrator.cli.exits import Exit
from orchestrator.core.runs.states import RunStarted, RunState
from orchestrator.supervisor.record import wait
from tests.hosts.clients import asking, new_key
from tests.hosts.echo_pipeline import ECHO, gateway, write_echo
from tests.hosts.namespaces import ROOT, lacking
from tests.hosts.services import services_lacking
from tests.hosts.site import SECONDS, STEPS, Site, site, to

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]
# Seconds that the head is away: for so long it ends nothing where it keeps what it knows.
AWAY, LONG_AWAY = 15.0, 125.0
PAGE = ROOT / "docs/hosts.md"
# What the page has a head keep on its disk, and how long it has nodes wait for it.
LASTING = {
    name: value.replace("$HOME", "/srv")
    for name, value in re.findall(r"(RAY_gcs_\w+)=(\S+)", PAGE.read_text(encoding="utf-8"))
}


@contextmanager
def serving(logs: Path, **env: str) -> Iterator[tuple[Site, str]]:
    """Have a site that serves `echo`, and a key of its gateway; host 0 is the head alone.

    Controller and gateway are on host 1, of pool `hopper`.
    """
    if why := lacking() or services_lacking():
        pytest.skip(why)
    pools = {"hopper": [1], "atlas": [2]}
    bare = ("--include-dashboard=false",)
    with site(logs, hosts=4, pools=pools, services=3, mlflow=False, head=bare, **env) as built:
        hopper = built.network.hosts[1]
        write_echo(hopper)
        hopper.write("steps.py", STEPS)
        launched = built.orchestrator(hopper, "launch", *ECHO)
        assert launched.returncode == 0, launched.stdout + launched.stderr
        yield built, new_key(built, hopper)


@contextmanager
def without_head(lab: Site, seconds: float = AWAY) -> Iterator[None]:
    """Have no head for so long; it is started anew in the end."""
    head = lab.network.hosts[0]
    died = monotonic()
    head.die()
    yield
    wait(lambda: False, seconds - (monotonic() - died))
    lab.servers.mend()


def test_all_goes_on_where_the_head_keeps_what_it_knows(tmp_path: Path) -> None:
    with serving(tmp_path, **LASTING) as (lab, key):
        _, hopper, _, client = lab.network.hosts
        launch = lab.launch(hopper, *to(1000))
        lab.until_saved(20)
        with asking(client, "echo", key, gateway(hopper)) as asked:
            replicas = dict(lab.store.replicas())
            with without_head(lab, LONG_AWAY):
                asked.until_answered(20)
            lab.finished(launch)
            asked.until_answered(20)
        assert len(lab.attempts()) == 1
        assert asked.failed() == []
        assert dict(lab.store.replicas()) == replicas


def test_a_head_that_comes_back_without_what_it_knew_loses_no_step_that_was_saved(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as (lab, key):
        _, hopper, _, client = lab.network.hosts
        launch = lab.launch(hopper, *to(400))
        run = lab.until_saved(20).header.run
        with asking(client, "echo", key, gateway(hopper)) as asked, without_head(lab):
            asked.until_answered(20)
        assert lab.ended(launch) == Exit.ERROR
        way_out = f"when it is up, run {run} goes on: orchestrator resume {run}"
        assert f"was started anew, without what it knew; {way_out}" in launch.printed()

        def resumed() -> bool:
            lab.servers.mend()  # as whoever supervises the nodes does, when they end
            return lab.orchestrator(hopper, "resume", run).returncode == 0

        back = monotonic()
        assert wait(resumed, SECONDS, tick=1.0), lab.seen()
        print(f"done {monotonic() - back:.0f} s after the head was back\n{lab.seen()}")
        assert (lab.run().state, lab.run().epoch) == (RunState.SUCCEEDED, 2)
        lost, last = lab.attempts()
        assert (last.resumed or 0) >= max(lost.saved)
        print(lab.orchestrator(hopper, "endpoints").stdout)
        again = lab.orchestrator(hopper, "launch", *ECHO)
        assert again.returncode == 0, again.stdout + again.stderr
        with asking(client, "echo", key, gateway(hopper)) as asked:
            asked.until_answered(20)
        print(asked.failed(), lab.orchestrator(hopper, "endpoints").stdout)


def test_a_detached_run_goes_on_by_itself_once_the_head_that_ran_its_controller_is_back(
    logs: Path,
) -> None:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    served = ("--dashboard-host=0.0.0.0", "--include-dashboard=true")
    with site(logs, mlflow=False, head=served, **token, **LASTING) as lab:
        hopper = lab.network.hosts[1]
        hopper.write("steps.py", STEPS)
        lab.do(hopper, "up", "tracking=none")
        lab.do(hopper, "launch", "--detach", *to(1500))
        name = lab.until_saved(20).header.run
        with without_head(lab, LONG_AWAY):
            pass
        back = monotonic()
        lab.until_resumed(2)
        print(f"it went on {monotonic() - back:.0f} s after the head was back")
        assert wait(lambda: lab.run().done, 2 * SECONDS, tick=1.0), lab.seen()
        lost, last = lab.attempts()
        assert (lab.run().state, lab.run().epoch) == (RunState.SUCCEEDED, 2)
        assert (last.resumed or 0) >= max(lost.saved)
        begun = [s.event for s in lab.store.events(name) if isinstance(s.event, RunStarted)]
        assert [event.by for event in begun] == ["", "the reaper of h1"]
