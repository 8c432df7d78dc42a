"""A cluster that is not ours to start: what it says of itself, and runs handed over to it."""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.core.errors import ClusterError, ConfigError, Problem
from orchestrator.core.settings import Settings
from orchestrator.core.spec.environment_variables import is_file, secret_sources
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.plan import Plan
from orchestrator.messages import HeadFacts, NodeReport
from orchestrator.node import software
from orchestrator.ports import ClusterJob, ForeignHead
from orchestrator.wiring.adapters import (
    DATABASE_VARIABLE,
    cluster_address,
    database,
    database_refusal,
    run_worker,
    variable,
)
from orchestrator.wiring.home_folder import HOME_VARIABLE, SECRET_VARIABLE, replica_secret
from orchestrator.wiring.secret_values import secret
from orchestrator.wiring.storage import storage_uri, unread

# What a controller needs to get to the database, the artifact store, MLflow and what it tells.
PASSED_ON = ("AWS_", "AZURE_", "FSSPEC_", "GOOGLE_", "MLFLOW_", "ORCHESTRATOR_", "OTEL_", "PG")
CODE = ("orchestrator", "jobs")  # packages of which a node refuses other files than these
_OF_A_HOST = frozenset({HOME_VARIABLE, "ORCHESTRATOR_CACHE"})
# Variables whose value is a file, whether that is there or not.
_OF_A_FILE = re.compile(r"_(?:FILE|PATH|BUNDLE|CERTIFICATE|CREDENTIALS)$|^PG(?:SSL\w+|\w+FILE)$")
# The first Python of the node that has the product.
_ANY_PYTHON = """\
for python in "$0" python3 python; do
  "$python" -c 'import orchestrator' 2>/dev/null && exec "$python" "$@"
done
echo "no Python of this node has orchestrator: tried $0, python3, python" >&2; exit 1"""
logger = logging.getLogger(__name__)


class _RayHead:
    """The head as Ray has it; what that needs is imported when it is asked."""

    def is_here(self, host: str) -> bool:
        from orchestrator.adapters.rayqueries import gcs

        return gcs.is_here(host)

    def token(self) -> str:
        from orchestrator.adapters.rayqueries import gcs

        return gcs.token()

    def job_server(self, address: str) -> str:
        from orchestrator.adapters.raycluster import jobs

        return jobs.server_of(address)

    def check(self, server: str) -> None:
        from orchestrator.adapters.raycluster import jobs

        jobs.check(server)

    def submit(self, server: str, words: Sequence[str], files: Mapping[str, bytes]) -> ClusterJob:
        from orchestrator.adapters.raycluster import jobs

        return jobs.submit(server, words, files)


RAY_HEAD = _RayHead()


# --- what it says ------------------------------------------------------------------------------


def head_facts(settings: Settings) -> HeadFacts | None:
    """Return what the head says of its cluster; `None` where it is too busy to answer in time.

    Raises:
        ClusterError: Nobody listens there, it wants another token, or is no head of Ray.
    """
    from orchestrator.adapters.raycluster import access
    from orchestrator.adapters.rayqueries import gcs

    address = cluster_address(settings)
    access.check(address)
    return gcs.ask(address)


def other_versions(facts: HeadFacts) -> str:
    """Return which versions the cluster has and this process has not; empty where they agree."""
    from orchestrator.adapters.rayqueries import gcs

    return gcs.other_versions(facts)


def elsewhere(facts: HeadFacts) -> str:
    """Return that this machine is no node of the cluster; empty where it is one."""
    from orchestrator.adapters.rayqueries import gcs

    return gcs.elsewhere(facts)


def of_job_server(address: str) -> str:
    """Return that `address` is a job server's, and what to do."""
    what = f"{address!r} is the address of a job server, by which runs are handed over alone"
    return f"{what}; add --detach, or name HOST:PORT of the head on one of its nodes"


def job_server(settings: Settings, head: ForeignHead = RAY_HEAD) -> str:
    """Return the URL of the cluster's job server, which answers and lets this process in.

    Raises:
        ClusterError: There is none, or it does not.
    """
    server = head.job_server(cluster_address(settings))
    head.check(server)
    return server


def versions() -> Mapping[str, str]:
    """Return what this process runs on, by name, as nodes tell theirs."""
    packages = {"Ray": "ray", "orchestrator": "orchestrator"}
    installed = {name: metadata.version(package) for name, package in packages.items()}
    return {"Python": platform.python_version(), **installed}


def shared_code() -> Mapping[str, str]:
    """Return version and digest of the packages of which all nodes must have the same files."""
    return software.code_of(CODE)


def node_reports(settings: Settings, home: Path, mark: str) -> Sequence[NodeReport]:
    """Return what each live node is like; it tries to read `mark` and to open the database.

    The mark says its own name; without one nothing is read.

    Raises:
        ClusterError: The cluster can't be joined or asked.
    """
    from orchestrator.adapters.raycluster.cluster import RayCluster
    from orchestrator.adapters.raycluster.node_report import NodeChecks

    def read(pool: Pool | None) -> Callable[[], str]:
        sources = pool.secret_sources.items() if pool else ()
        values = {name: value for name, source in sources if (value := secret(source)) is not None}
        uri, patience = storage_uri(settings, home), settings.storage.proof
        return partial(unread, uri, mark, mark, values, patience)

    servers = _database_server()
    checks = NodeChecks(
        read=read if mark else None,
        reach=servers,
        code=CODE,
        open_database=database_refusal if servers else None,
        cache=settings.storage.cache,
    )
    connected = RayCluster(cluster_address(settings), run_worker)
    try:
        return connected.reports(settings.fleet.pools, checks)
    finally:
        connected.close()


def _database_server() -> Mapping[str, Sequence[tuple[str, int]]]:
    """Return where the database listens, by `database`; nothing where it is of this host alone."""
    from orchestrator.adapters.database import addresses

    servers = addresses.servers(variable(DATABASE_VARIABLE), os.environ)
    return {"database": servers} if servers else {}


# --- runs that are handed over -----------------------------------------------------------------


def hands_far(settings: Settings, head: ForeignHead = RAY_HEAD) -> bool:
    """Return whether a controller that is handed over runs on another machine than this."""
    address = cluster_address(settings)
    if not address:
        return False
    host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    return not head.is_here(host)


def check_handing_over(settings: Settings, head: ForeignHead = RAY_HEAD) -> None:
    """Check that a controller on another machine can have what it needs, before a run is made.

    Files of this host are not there: variables that name some stay as the head has them, which is
    logged.

    Raises:
        ConfigError: It would not see the database, or nothing is there to seal by.
        ClusterError: The cluster has no job server, or that does not let this process in.
    """
    from orchestrator.adapters.database import addresses

    if not addresses.seen_elsewhere(variable(DATABASE_VARIABLE), os.environ):
        where = f"the controller will run on the head of {cluster_address(settings)!r}"
        what = f"{where}, which does not see the database of this home"
        hint = "set it to one that both reach: postgresql://USER@HOST/NAME"
        raise ConfigError([Problem(DATABASE_VARIABLE, what, hint)])
    job_server(settings, head)
    variables = _environment(far=True)
    if not _shared_secret(head, None):
        what = f"{', '.join(sorted(variables))} would travel unsealed: the cluster has no token"
        hint = f"start Ray with RAY_AUTH_MODE=token, or set {SECRET_VARIABLE} here and there"
        raise ConfigError([Problem("--detach", what, hint)])
    kept = ", ".join(sorted(_environment(far=False).keys() - variables.keys() - _OF_A_HOST))
    if kept:
        logger.warning("not handed over: %s, of files of this host; the head has its own", kept)


def submit(
    settings: Settings,
    home: Path,
    run: str,
    flags: Sequence[str],
    head: ForeignHead = RAY_HEAD,
) -> ClusterJob:
    """Hand run `run` to a controller that runs as a Ray job; return the job.

    `flags` are those of the command `_drive`. What it needs of this environment is sealed.

    Raises:
        ClusterError: The cluster has no job server, or refuses the job.
    """
    from orchestrator.adapters.raycluster import handed_over

    address, far = cluster_address(settings), hands_far(settings, head)
    server = head.job_server(address) if address else _managed(home)
    variables = _environment(far=far) | _secrets_of(database(home).header(run).plan)
    if not far:
        variables[HOME_VARIABLE] = str(home)
    drive = ["-m", "orchestrator", "_drive", run, *flags]
    words = ["sh", "-c", _ANY_PYTHON, sys.executable, *drive] if far else [sys.executable, *drive]
    if not address:  # Ray names its own address to a job: the home's would be taken for another's
        words = ["env", "-u", "RAY_ADDRESS", *words]
    if not far:
        of_host = {HOME_VARIABLE: str(home), "PYTHONPATH": variable("PYTHONPATH")}
        words = ["env", *(f"{name}={value}" for name, value in of_host.items() if value), *words]
    sealed = handed_over.seal(run, variables, _shared_secret(head, None if far else home))
    return head.submit(server, words, {handed_over.FILE: sealed})


def _managed(home: Path) -> str:
    from orchestrator.adapters.raycluster import managed_ray

    running = managed_ray.find(home)
    if running is None:
        raise ClusterError(f"no cluster of {str(home)!r} is up to run a detached launch on")
    return running.dashboard


def take_over_environment(run: str, head: ForeignHead = RAY_HEAD) -> None:
    """Take what was sealed for the controller of `run`, which this process is; once.

    Ray gives the workers of a job its package too: ours need none of it.

    Raises:
        ClusterError: It was sealed by another secret, or for another run.
    """
    from orchestrator.adapters.raycluster import handed_over

    sealed = Path(handed_over.FILE)
    if not sealed.exists():
        return
    content = sealed.read_bytes()
    sealed.unlink()
    home = variable(HOME_VARIABLE)
    secret_here = _shared_secret(head, Path(home) if home else None)
    os.environ.update(handed_over.opened(run, content, secret_here))
    os.environ.setdefault(HOME_VARIABLE, str(Path.home() / ".orchestrator"))
    handed_over.keep_from_workers(os.environ)


def _environment(*, far: bool) -> dict[str, str]:
    """Return what a controller is given of this environment; on a `far` host no paths of this."""
    own = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    if not far:
        return own
    return {
        name: value
        for name, value in own.items()
        if name not in _OF_A_HOST and not _is_file_here(name, value)
    }


def _is_file_here(name: str, value: str) -> bool:
    """Return whether a variable names a file, by its own name, or since there is one."""
    path = value.removeprefix("file://")
    if "://" in path:
        return False
    exists = os.path.exists(os.path.expanduser(path))  # noqa: PTH110, PTH111 - of any text
    of_file = bool(_OF_A_FILE.search(name))
    return (of_file or exists) if "/" in path else (of_file and exists)


def _secrets_of(plan: Plan) -> dict[str, str]:
    """Return the variables of this host that stages are to have as secrets."""
    sources = (
        source
        for planned in plan.stages
        for pool in planned.pools
        for source in secret_sources(planned.stage, plan.pools[pool]).values()
    )
    values = {source: secret(source) for source in sources if not is_file(source)}
    return {name: value for name, value in values.items() if value is not None}


def _shared_secret(head: ForeignHead, home: Path | None) -> bytes:
    """Return what both ends have: the cluster's token, or `ORCHESTRATOR_SECRET`.

    On the same host it may be that of a `home`; empty where there is none.
    """
    shared = head.token() or variable(SECRET_VARIABLE)
    return shared.encode() if shared or home is None else replica_secret(home)
