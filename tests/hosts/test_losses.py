"""What becomes of a run whose training host is cut off from the others, or from one of them.

`pytest -s` prints what the user of each run sees.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.run import Attempt
from orchestrator.core.runs.states import RunState
from orchestrator.supervisor.record import wait
from tests.hosts.namespaces import Host, Process, lacking
from tests.hosts.services import BUCKET, services_lacking
from tests.hosts.site import STEPPING, STEPS, Site, site

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]
BARE = ("--include-dashboard=false",)
GANG = "pipeline.stages.train.needs.workers=2"
SECONDS = 240.0
CHECKPOINTS = """
import fsspec
fs = fsspec.filesystem("s3", use_listings_cache=False)
print(*fs.glob("{bucket}/checkpoints/{run}/train/step-*"))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A controller with the head on host 0, a pool on each of the next, services on the last."""
    if why := lacking() or services_lacking():
        pytest.skip(why)
    pools = {"hopper": [1], "atlas": [2]}
    logs = tmp_path_factory.mktemp("logs")
    with site(logs, hosts=4, pools=pools, services=3, mlflow=False, head=BARE) as built:
        built.network.hosts[0].write("steps.py", STEPS)
        yield built


@pytest.fixture
def lab(built: Site) -> Iterator[Site]:
    """The site, with all that was lost before mended."""
    yield built
    built.mend()


def to(steps: int) -> tuple[str, ...]:
    """Return the words that launch a run of so many steps."""
    return (*STEPPING, f"pipeline.stages.train.params.to={steps}")


def attempts(lab: Site) -> tuple[Attempt, ...]:
    return lab.run().stages["train"].attempts


def until_resumed(lab: Site, number: int) -> Attempt:
    """Wait until attempt `number` goes on from a checkpoint."""

    def resumed() -> bool:
        known = attempts(lab)
        return len(known) >= number and known[number - 1].resumed is not None

    assert wait(resumed, SECONDS, tick=0.5), seen(lab)
    return attempts(lab)[number - 1]


def seen(lab: Site) -> str:
    """Return what the user sees: the terminal of the launch, then `status`."""
    head = lab.network.hosts[0]
    status = lab.orchestrator(head, "status", lab.run().header.run).stdout
    return "\n".join(
        [*(process.printed() for process in lab.typed), "$ orchestrator status", status]
    )


def workers(host: Host) -> list[int]:
    """Return the processes on a host that work for attempts, the eldest first."""
    return [pid for pid in sorted(host.processes()) if command(pid).startswith(b"ray::")]


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def node_log(host: Host) -> str:
    """Return what the workers of a host wrote there."""
    files = host.path("/tmp/ray").glob("session_2*/logs/worker-*")  # noqa: S108 - Ray's
    return "".join(file.read_text(errors="replace") for file in files)


def until_started_anew(lab: Site, host: Host) -> None:
    """Wait until a node that healed has ended, with its workers, and start it as one would."""
    node = lab.servers.running[host.name, "ray"]
    assert wait(lambda: not node.running, SECONDS, tick=0.5), "it is dead to the cluster"
    assert wait(lambda: not workers(host), 30.0, tick=0.5), workers(host)
    lab.servers.mend()


def finished(process: Process, lab: Site) -> None:
    """Wait for the end of a command; what it did has succeeded."""
    assert process.finish(SECONDS) == 0, seen(lab)
    print(seen(lab))
    assert lab.run().state is RunState.SUCCEEDED


def test_a_run_whose_training_host_is_cut_off_falls_back_from_its_last_checkpoint(
    lab: Site,
) -> None:
    head, hopper, _, _ = lab.network.hosts
    launch = lab.launch(head, *to(80))
    lab.until_saved(20)
    lab.network.cut(hopper)
    until_resumed(lab, 2)
    lab.network.heal(hopper)
    finished(launch, lab)
    lost, last = attempts(lab)
    assert lost.failure is not None
    assert (lost.failure.kind, lost.failure.node) == (FailureKind.NODE_LOST, lost.nodes[0])
    assert (lost.pool, last.pool) == ("hopper", "atlas")
    assert last.resumed == max(lost.saved)
    until_started_anew(lab, hopper)


def test_a_host_that_hears_nobody_but_the_storage_is_refused_its_late_checkpoint_by_name(
    lab: Site,
) -> None:
    head, hopper, _, _ = lab.network.hosts
    launch = lab.launch(head, *to(400), GANG)
    run = lab.until_saved(10).header.run
    lab.network.lose(hopper, head)
    successor = until_resumed(lab, 2)
    refusal = re.compile(
        r"checkpoint of step (\d+) of worker 0 on 'h1' is refused: attempt 1 of epoch 1 must not "
        rf"save any more: attempt 2 of epoch 1 has claimed 'checkpoints/{run}/train'"
    )
    logged: Callable[[], str] = lambda: lab.orchestrator(head, "logs", run).stdout  # noqa: E731
    assert wait(lambda: bool(refusal.search(node_log(hopper))), SECONDS, tick=1.0), seen(lab)
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
    finished(launch, lab)
    lost, last = attempts(lab)
    assert lost.failure is not None
    assert lost.failure.kind is FailureKind.NODE_LOST
    assert max(lost.saved) <= (last.resumed or 0)
    late = [name for name in stored(lab, run) if name.endswith("-0001-0001")]
    assert not [name for name in late if step_of(name) > (last.resumed or 0)], "swept"


def stored(lab: Site, run: str) -> list[str]:
    """Return the names of all checkpoints in the storage, whole or not."""
    listing = CHECKPOINTS.format(bucket=BUCKET, run=run)
    done = lab.network.hosts[0].python("-c", listing)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def step_of(name: str) -> int:
    return int(name.rpartition("/")[2].split("-")[1])
