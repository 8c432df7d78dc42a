"""What becomes of a run that loses a worker, its controller, or the link of one of its hosts.

`pytest -s` prints what the user of each run sees.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.states import RunState
from orchestrator.supervisor.record import wait
from tests.hosts.namespaces import Host
from tests.hosts.services import BUCKET, at_work, ray_workers
from tests.hosts.site import GANG, SECONDS, STEPS, Site, site, to

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]
BARE = ("--include-dashboard=false",)
SHORT_LOSS = 12.0  # seconds of a link
ELSEWHERE = "/srv/elsewhere"
CHECKPOINTS = """
import fsspec
fs = fsspec.filesystem("s3", use_listings_cache=False)
print(*fs.glob("{bucket}/checkpoints/{run}/train/step-*"))
"""


@pytest.fixture(scope="module")
def built(logs: Path) -> Iterator[Site]:
    """A controller with the head on host 0, a pool on each of the next, services on the last."""
    with site(logs, mlflow=False, head=BARE) as built:
        built.network.hosts[0].write("steps.py", STEPS)
        yield built


def node_log(host: Host) -> str:
    """Return what the workers of a host wrote there."""
    files = host.path("/tmp/ray").glob("session_2*/logs/worker-*")  # noqa: S108 - Ray's
    return "".join(file.read_text(errors="replace") for file in files)


def until_started_anew(lab: Site, host: Host) -> None:
    """Wait until a node that healed has ended, with its workers, and start it as one would."""
    node = lab.servers.running[host.name, "ray"]
    assert wait(lambda: not node.running, SECONDS, tick=0.5), "it is dead to the cluster"
    assert wait(lambda: not ray_workers(host), 30.0, tick=0.5), ray_workers(host)
    lab.servers.mend()


def test_a_worker_that_is_killed_when_it_has_just_begun_is_begun_again_on_its_pool(
    lab: Site,
) -> None:
    head, hopper, _, _ = lab.network.hosts
    launch = lab.launch(head, *to(20), GANG)
    assert wait(lambda: len(at_work(hopper)) == 2, SECONDS, tick=0.05), lab.seen()
    os.kill(at_work(hopper)[-1], signal.SIGKILL)
    lab.finished(launch)
    lost, last = lab.attempts()
    assert [failure.kind for failure in lab.failures()] == [FailureKind.WORKER_LOST]
    assert (lost.pool, last.pool) == ("hopper", "hopper")
    assert not at_work(hopper)


def test_a_live_run_is_refused_to_another_host_and_goes_on_there_once_its_controller_is_killed(
    lab: Site,
) -> None:
    head, hopper, other, _ = lab.network.hosts
    launch = lab.launch(head, *to(150))
    run = lab.until_saved(10).header.run
    other.path(ELSEWHERE).mkdir(exist_ok=True)
    argv = ("env", f"--chdir={ELSEWHERE}", sys.executable, "-m", "orchestrator", "resume", run)
    refused = other.run(*argv)
    assert refused.returncode == 1, refused.stdout
    (line,) = refused.stderr.splitlines()
    print(line)
    holder = rf"error: run '{run}' has a controller since \S+ \S+ \(process \d+ on h0, seen "
    assert re.match(holder, line), line
    launch.signal(signal.SIGKILL)
    killed = monotonic()
    assert wait(lambda: other.run(*argv).returncode != 1, 60.0, tick=1.0), lab.seen()
    print(f"ended {monotonic() - killed:.0f} s after the kill\n{lab.seen()}")
    now = lab.run()
    assert (now.state, now.epoch) == (RunState.SUCCEEDED, 2)
    lost, last = lab.attempts()
    assert [failure.kind for failure in lab.failures()] == [FailureKind.CONTROLLER_LOST]
    assert (last.resumed or 0) >= max(lost.saved), "from the newest, whoever heard of it"
    assert not at_work(hopper)


def test_a_run_goes_on_unharmed_while_its_controller_and_the_head_have_no_link_for_a_while(
    lab: Site,
) -> None:
    head, hopper, _, _ = lab.network.hosts
    launch = lab.launch(head, *to(200))
    run = lab.until_saved(10).header.run
    before = newest(hopper, run)
    lab.network.cut(head)
    wait(lambda: False, SHORT_LOSS)
    after = newest(hopper, run)
    lab.network.heal(head)
    print(f"checkpoints {before} to {after} were saved meanwhile")
    assert after > before + 10
    lab.finished(launch)
    assert len(lab.attempts()) == 1


def test_a_run_whose_training_host_is_cut_off_falls_back_and_goes_back_once_that_has_healed(
    lab: Site,
) -> None:
    head, hopper, _, _ = lab.network.hosts
    launch = lab.launch(head, *to(500), "+pipeline.stages.train.recovery.failback=5")
    lab.until_saved(20)
    lab.network.cut(hopper)
    lab.until_resumed(2)
    lab.network.heal(hopper)
    until_started_anew(lab, hopper)
    lab.finished(launch)
    lost, away, back = lab.attempts()
    failure, left = lab.failures()
    assert (failure.kind, failure.node) == (FailureKind.NODE_LOST, lost.nodes[0])
    assert (lost.pool, away.pool, back.pool) == ("hopper", "atlas", "hopper")
    assert away.resumed == max(lost.saved)
    assert left.kind is FailureKind.DRAINED
    assert away.leaving == "pool 'hopper' has room again, which comes before 'atlas'"
    assert back.resumed == max(away.saved), "no step is done twice"


def test_a_host_that_hears_nobody_but_the_storage_is_refused_its_late_checkpoint_by_name(
    lab: Site,
) -> None:
    head, hopper, _, _ = lab.network.hosts
    launch = lab.launch(head, *to(400), GANG)
    run = lab.until_saved(10).header.run
    lab.network.lose(hopper, head)
    successor = lab.until_resumed(2)
    refusal = re.compile(
        r"checkpoint of step (\d+) of worker 0 on 'h1' is refused: attempt 1 of epoch 1 must not "
        rf"save any more: attempt 2 of epoch 1 has claimed 'checkpoints/{run}/train'"
    )
    logged: Callable[[], str] = lambda: lab.orchestrator(head, "logs", run).stdout  # noqa: E731
    assert wait(lambda: bool(refusal.search(node_log(hopper))), SECONDS, tick=1.0), lab.seen()
    assert wait(lambda: bool(refusal.search(logged())), SECONDS, tick=5.0), "the run says it too"
    lines = [line for line in logged().splitlines() if refusal.search(line)]
    print(*lines, sep="\n")
    assert len(lines) == 1
    match = refusal.search(lines[0])
    assert match is not None
    assert successor.resumed is not None
    assert int(match[1]) > successor.resumed
    lab.network.find(hopper, head)
    until_started_anew(lab, hopper)
    lab.finished(launch)
    lost, last = lab.attempts()
    assert [failure.kind for failure in lab.failures()] == [FailureKind.NODE_LOST]
    assert max(lost.saved) <= (last.resumed or 0)
    late = [name for name in stored(head, run) if name.endswith("-0001-0001")]
    assert not [name for name in late if step_of(name) > (last.resumed or 0)], "swept"


def stored(host: Host, run: str) -> list[str]:
    """Return the names of all checkpoints in the storage, whole or not, as a host sees them."""
    done = host.python("-c", CHECKPOINTS.format(bucket=BUCKET, run=run))
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def newest(host: Host, run: str) -> int:
    """Return the step of the newest of them; quickly."""
    listing = f"{host.env['AWS_ENDPOINT_URL']}/{BUCKET}?prefix=checkpoints/{run}/train/step-"
    keys = host.run("curl", "--silent", "--show-error", listing)
    assert keys.returncode == 0, keys.stderr
    return max(int(step) for step in re.findall(r"/step-(\d+)", keys.stdout))


def step_of(name: str) -> int:
    return int(name.rpartition("/")[2].split("-")[1])
