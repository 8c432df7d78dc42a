"""What becomes of runs whose bucket refuses, is lost, or knows nobody, or whose disks are full.

`pytest -s` prints what the user of each run sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from orchestrator.cli.exits import Exit
from orchestrator.core.failures.kinds import DISK_FULL, FailureKind
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunState
from orchestrator.supervisor.record import wait
from tests.hosts.namespaces import NET, Host, Process
from tests.hosts.services import BUCKET, S3
from tests.hosts.site import STEPS, Site, site, to

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]
SERVICES = 3
PROXY = 9001
REFUSAL = "/srv/refusal"
HELD = "/srv/held"
CACHE = "/srv/cache"
OUTAGE = 60.0  # seconds
BARE = ("--include-dashboard=false",)
IMPATIENT = ("attempts.storage=5", "pipeline.stages.train.limits.attempts=2")
TWO_NODES = ("fleet.pools.hopper.nodes=2", "attempts.storage=5")
FILES = "import fsspec, pathlib; fs = fsspec.filesystem('s3', use_listings_cache=False)\n"
LOSE = f"""{FILES}
for path in fs.find("{BUCKET}"):
    held = pathlib.Path("{HELD}", path)
    held.parent.mkdir(parents=True, exist_ok=True)
    held.write_bytes(fs.cat_file(path))
fs.rm("{BUCKET}", recursive=True)
assert not fs.exists("{BUCKET}")
"""
RESTORE = f"""{FILES}
fs.mkdir("{BUCKET}")
for held in filter(pathlib.Path.is_file, pathlib.Path("{HELD}").rglob("*")):
    fs.pipe_file(str(held.relative_to("{HELD}")), held.read_bytes())
"""


@pytest.fixture(scope="module")
def built(logs: Path) -> Iterator[Site]:
    """A bucket behind a proxy on host 3, and two nodes of `hopper` and one of `atlas`.

    The caches of the nodes have small disks of their own.
    """
    url = f"http://{NET}.{SERVICES + 1}:{PROXY}"
    pools = {"hopper": [1, 4], "atlas": [2]}
    own = {"AWS_ENDPOINT_URL": url, "ORCHESTRATOR_CACHE": CACHE}
    with site(logs, hosts=5, pools=pools, mlflow=False, head=BARE, **own) as built:
        head, first, other_pool, services, second = built.network.hosts
        program = ("python", "-m", "tests.hosts.refusing_s3", str(PROXY), at_s3(services), REFUSAL)
        built.servers.start(services, "refusing", PROXY, *program)
        for host in (first, second, other_pool):
            host.path(CACHE).mkdir(exist_ok=True)
            mounted = host.run("mount", "-t", "tmpfs", "-o", "size=16m", "none", CACHE)
            assert mounted.returncode == 0, mounted.stderr
        head.write("steps.py", STEPS)
        yield built


def at_s3(services: Host) -> str:
    """Return where the S3 API itself is, on the host that has it."""
    return f"http://{services.address}:{S3}"


@contextmanager
def refusing(lab: Site, refusal: str) -> Iterator[None]:
    """Have the bucket answer a status and a code alone."""
    services = lab.network.hosts[SERVICES]
    services.write(REFUSAL, refusal)
    try:
        yield
    finally:
        services.path(REFUSAL).unlink()


@contextmanager
def without_bucket(lab: Site) -> Iterator[None]:
    """Have no bucket; what it held is put into a new one in the end."""
    services = lab.network.hosts[SERVICES]
    with refusing(lab, "503 SlowDown"):  # nobody writes meanwhile
        wait(lambda: False, 1.0)
        at_the_bucket(services, LOSE)
    try:
        yield
    finally:
        at_the_bucket(services, RESTORE)


def at_the_bucket(services: Host, script: str) -> None:
    argv = ("env", f"AWS_ENDPOINT_URL={at_s3(services)}", "python", "-c", script)
    done = services.run(*argv)
    assert done.returncode == 0, done.stderr


@contextmanager
def knowing_nobody(lab: Site) -> Iterator[None]:
    """Have the S3 API look at credentials, and take none for right."""
    services = lab.network.hosts[SERVICES]

    def after(requests: int) -> None:
        asked = ("curl", "--fail", "--silent", "--show-error", "--header")
        body = ("Content-Type: text/plain", "--data", str(requests))
        done = services.run(*asked, *body, f"{at_s3(services)}/moto-api/reset-auth")
        assert done.returncode == 0, done.stderr

    after(0)
    try:
        yield
    finally:
        after(10**9)


@contextmanager
def filled(*hosts: Host) -> Iterator[None]:
    """Have no room left on the disks of the caches of hosts."""
    with ExitStack() as stack:
        for host in hosts:
            full = host.run("dd", "if=/dev/zero", f"of={CACHE}/filler", "bs=64k")
            assert "No space left" in full.stderr, full.stderr
            stack.callback(host.path(f"{CACHE}/filler").unlink)
        yield


def paused(lab: Site, launch: Process) -> Run:
    """Wait until a run has paused for its storage; return it."""
    assert lab.ended(launch) == Exit.NOT_FINISHED, lab.seen()
    print(lab.seen())
    run = lab.run()
    assert run.state is RunState.PAUSED
    assert [failure.kind for failure in lab.failures()] == [FailureKind.STORAGE] * 2
    return run


def refused(lab: Site, words: Sequence[str]) -> str:
    """Launch another run, which is refused before there is any; return the line."""
    before = lab.store.runs(1000)
    done = lab.orchestrator(lab.network.hosts[0], "launch", *words)
    print(done.stderr)
    assert done.returncode == Exit.ERROR, done.stdout
    (line,) = done.stderr.splitlines()
    assert lab.store.runs(1000) == before
    return line


def goes_on(lab: Site, run: Run) -> None:
    """Resume a run, which succeeds from a checkpoint."""
    lab.do(lab.network.hosts[0], "resume", run.header.run)
    assert lab.run().state is RunState.SUCCEEDED
    assert (lab.attempts()[-1].resumed or 0) >= 10


def of_pool(lab: Site, node: str) -> Host:
    """Return the host that is a node by this name, or by its address."""
    (host,) = [host for host in lab.network.hosts if node in {host.name, host.address}]
    return host


# --- the bucket ---------------------------------------------------------------------------------


def test_a_bucket_that_answers_503_for_a_minute_ends_no_attempt(lab: Site) -> None:
    launch = lab.launch(lab.network.hosts[0], *to(100))
    lab.until_saved(10)
    with refusing(lab, "503 SlowDown"):
        wait(lambda: False, OUTAGE)
    lab.finished(launch)
    assert len(lab.attempts()) == 1


def test_a_bucket_that_answers_503_for_long_pauses_the_run_which_goes_on_once_it_is_mended(
    lab: Site,
) -> None:
    launch = lab.launch(lab.network.hosts[0], *to(100), *IMPATIENT)
    lab.until_saved(10)
    with refusing(lab, "503 SlowDown"):
        run = paused(lab, launch)
    goes_on(lab, run)


@pytest.mark.parametrize(
    ("outage", "way_out"),
    [
        (without_bucket, "bucket does not exist; make the bucket, with what it held"),
        (knowing_nobody, "check the credentials of this machine"),
    ],
)
def test_a_lost_bucket_or_wrong_credentials_are_named_and_the_run_goes_on_once_mended(
    lab: Site, outage: Callable[[Site], AbstractContextManager[None]], way_out: str
) -> None:
    launch = lab.launch(lab.network.hosts[0], *to(100), *IMPATIENT)
    lab.until_saved(10)
    with outage(lab):
        run = paused(lab, launch)
        line = refused(lab, to(100))
    for text in (line, *(failure.evidence for failure in lab.failures())):
        assert way_out in text
    goes_on(lab, run)


# --- disks --------------------------------------------------------------------------------------


def test_a_run_whose_disk_fills_goes_on_from_its_checkpoint_on_another_node_of_the_pool(
    lab: Site,
) -> None:
    launch = lab.launch(lab.network.hosts[0], *to(100), *TWO_NODES)
    lab.until_saved(10)
    with filled(of_pool(lab, lab.attempts()[0].nodes[0])):
        lab.finished(launch)
    lost, last = lab.attempts()
    (failure,) = lab.failures()
    assert (failure.kind, failure.sign) == (FailureKind.STORAGE, DISK_FULL)
    assert failure.node == lost.nodes[0]
    assert (lost.pool, last.pool) == ("hopper", "hopper")
    assert lost.nodes != last.nodes
    assert last.resumed == max(lost.saved)


def test_a_run_goes_to_another_pool_where_the_disks_of_its_own_are_full(lab: Site) -> None:
    head, first, _, _, second = lab.network.hosts
    launch = lab.launch(head, *to(100), *TWO_NODES)
    lab.until_saved(10)
    with filled(first, second):
        lab.finished(launch)
    assert [attempt.pool for attempt in lab.attempts()] == ["hopper", "hopper", "atlas"]
    assert {failure.node for failure in lab.failures()} == {
        node for attempt in lab.attempts()[:2] for node in attempt.nodes
    }
    assert lab.attempts()[-1].resumed == max(lab.attempts()[0].saved)


def test_a_run_that_has_no_disk_with_room_left_pauses_and_says_where_to_free_some(
    lab: Site,
) -> None:
    head, first, _, _, second = lab.network.hosts
    alone = ("fallbacks.train=[]", "pipeline.stages.train.limits.attempts=2")
    launch = lab.launch(head, *to(100), *TWO_NODES, *alone)
    lab.until_saved(10)
    with filled(first, second):
        run = paused(lab, launch)
    (line,) = run.stages["train"].reason.splitlines()
    assert "free some" in line
    assert lab.attempts()[0].nodes != lab.attempts()[1].nodes
    goes_on(lab, run)
