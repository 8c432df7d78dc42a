"""What hosts run for all of them: PostgreSQL, an S3 API, MLflow, nodes of a Ray cluster."""

from __future__ import annotations

import importlib.util
import json
import re
import secrets
import sys
from pathlib import Path

from orchestrator.adapters.rayqueries.chip_numbering import NUMBERED, numbering
from orchestrator.supervisor.record import wait
from tests import postgres
from tests.hosts.namespaces import NET, NOBODY, SECONDS, Host, Process

POSTGRES, S3, MLFLOW, RAY = 5432, 9000, 5000, 6379
BUCKET = "artifacts"
DATA = "/srv/postgresql"
SMALLEST_STORE, FIRST_OF_AGENTS = 78_643_200, 52_365
STARTS = 3  # of a Ray node
RAY_SECONDS = 300.0  # that Ray may take to be up, or to say that it is not
# With ports of its own a node is there before its agents are, which take long on a busy machine.
AGENTS = (
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
)
KEY_ID = "AKIAIOSFODNN7EXAMPLE"
# How Ray calls processes that work: by an actor, a function, or the name of a task.
_OF_AN_ATTEMPT = re.compile(rb"ray::(Member|run_task|\S+/train/)")
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
# A node that is cut off is missed after some 20 s, a link that is down for 12 s loses none.
NODES = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
    "RAY_memory_monitor_refresh_ms": "0",  # it looks at the whole machine
    "RAY_worker_niceness": "0",  # by its default workers wait for whatever else the machine does
    NUMBERED: numbering(("LAB", "LAB_A", "LAB_B")),
}


def services_lacking() -> str:
    """Return what services lack here; empty where they can be started."""
    if postgres.programs() is None:
        return "needs PostgreSQL's server, of Debian's package postgresql"
    if not importlib.util.find_spec("moto"):
        return "needs moto, which is an S3 API"
    return ""


class Servers:
    """What was started, by host and name; it ends with the hosts."""

    def __init__(self) -> None:
        self.running: dict[tuple[str, str], Process] = {}
        self._nodes: dict[str, tuple[Host, tuple[str, ...], dict[str, str]]] = {}

    def start(self, host: Host, name: str, port: int, *words: str, **env: str) -> Process:
        """Start a server on a host, and wait until it listens."""
        return self.started(host, name, port, host.start(*words, name=name, **env))

    def started(self, host: Host, name: str, port: int, process: Process) -> Process:
        """Wait until what was started listens."""
        self.running[host.name, name] = process
        wait(lambda: host.listens(port) or not process.running, SECONDS, tick=0.05)
        assert host.listens(port), f"{name} is not up on {host.name}: {process.printed()}"
        return process

    def postgres(self, host: Host, encoding: str = "UTF8") -> str:
        """Have PostgreSQL on a host, as a user of its own; return the URL of a database."""
        programs = postgres.programs()
        assert programs is not None
        password = secrets.token_hex(8)
        host.write("/srv/password", password)
        host.path("/srv").chmod(0o777)
        locale = "C.UTF-8" if encoding == "UTF8" else "C"
        as_told = (f"--encoding={encoding}", f"--locale={locale}", "--username=orchestrator")
        guarded = ("--auth=scram-sha-256", "--pwfile=/srv/password", "--no-sync")
        initdb = str(programs / "initdb")
        done = host.run(initdb, f"--pgdata={DATA}", *as_told, *guarded, user=NOBODY)
        assert done.returncode == 0, done.stderr
        open_to_all = f"host all all {NET}.0/24 scram-sha-256\n"
        with host.path(f"{DATA}/pg_hba.conf").open("a") as file:
            file.write(open_to_all)
        server = (str(programs / "postgres"), "-D", DATA, "-h", "0.0.0.0", "-k", DATA)  # noqa: S104 - of its network
        process = host.start(*server, "-c", "fsync=off", name="postgres", user=NOBODY)
        self.started(host, "postgres", POSTGRES, process)
        url = f"postgresql://orchestrator:{password}@{host.address}:{POSTGRES}/orchestrator"
        assert wait(lambda: "ready" in process.printed(), SECONDS, tick=0.05)
        createdb = (str(programs / "createdb"), "--maintenance-db", of_database(url, "postgres"))
        for name in ("orchestrator", "mlflow"):
            created = host.run(*createdb, name)
            assert created.returncode == 0, created.stderr
        return url

    def s3(self, host: Host) -> dict[str, str]:
        """Have an S3 API on a host with a bucket; return the variables by which it is used."""
        words = (sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", str(S3))  # noqa: S104 - of its network
        self.start(host, "s3", S3, *words)
        env = {
            "AWS_ENDPOINT_URL": f"http://{host.address}:{S3}",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(8),
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        put = ("curl", "--fail", "--silent", "--show-error", "--request", "PUT")
        created = host.run(*put, f"{env['AWS_ENDPOINT_URL']}/{BUCKET}")
        assert created.returncode == 0, created.stderr
        return env

    def mlflow(self, host: Host, database: str, artifacts: str, **env: str) -> str:
        """Have an MLflow server on a host, which passes artifacts on; return its address."""
        words = (sys.executable, "-m", "mlflow", "server", "--host", "0.0.0.0")  # noqa: S104 - of its network
        where = ("--port", str(MLFLOW), "--backend-store-uri", database)
        store = ("--serve-artifacts", "--artifacts-destination", artifacts, "--workers", "1")
        self.start(host, "mlflow", MLFLOW, *words, *where, *store, **QUIET, **env)
        return f"http://{host.address}:{MLFLOW}"

    def ray_head(self, host: Host, *words: str, **env: str) -> str:
        """Have the head of a Ray cluster on a host; return its address."""
        self._ray(host, "--head", f"--port={RAY}", "--num-cpus=0", *words, **env)
        return f"{host.address}:{RAY}"

    def ray_node(self, host: Host, address: str, pool: str, resource: str, **env: str) -> None:
        """Have a node of a Ray cluster on a host, with two chips of a pool."""
        resources = f"--resources={json.dumps({resource: 2})}"
        words = (f"--address={address}", "--num-cpus=4", resources, f"--labels=pool={pool}")
        self._ray(host, *words, **env)

    def mend(self) -> None:
        """Have the Ray nodes that have ended start once more, as whoever supervises them would."""
        for host, words, env in self._nodes.values():
            if not self.running[host.name, "ray"].running:
                self._ray(host, *words, **env)

    def restart(self, host: Host, **env: str) -> None:
        """Start the Ray node of a host anew, with other variables this once."""
        process = self.running[host.name, "ray"]
        process.stop()
        _, words, usual = self._nodes[host.name]
        self._ray(host, *words, **{**usual, **env})
        self._nodes[host.name] = (host, words, usual)

    def _ray(self, host: Host, *words: str, **env: str) -> None:
        """Start a Ray node; once more where a busy machine was too slow for Ray."""
        self._nodes[host.name] = (host, words, env)
        start = (host.root.python, "-m", "ray.scripts.scripts", "start", "--block")
        small = (f"--object-store-memory={SMALLEST_STORE}", "--disable-usage-stats")
        ports = [f"{name}={port}" for port, name in enumerate(AGENTS, FIRST_OF_AGENTS)]
        said, slow = "Ray runtime started.", "timed out during startup"
        for _ in range(STARTS):
            process = host.start(*start, *small, *ports, *words, name="ray", **NODES, **env)
            self.running[host.name, "ray"] = process
            wait(lambda p=process: said in p.printed() or not p.running, RAY_SECONDS, tick=0.2)  # type: ignore[misc]
            if slow not in process.printed():
                break
        assert said in process.printed(), process.printed()


def ray_workers(host: Host) -> list[int]:
    """Return the processes on a host that Ray has named, agents too, the eldest first."""
    return [pid for pid in sorted(host.processes()) if _command(pid).startswith(b"ray::")]


def at_work(host: Host) -> list[int]:
    """Return those that are workers of attempts now, of a gang or alone."""
    return [pid for pid in ray_workers(host) if _OF_AN_ATTEMPT.match(_command(pid))]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def of_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return f"{url.rpartition('/')[0]}/{name}"


def from_here(host: Host, url: str) -> str:
    """Return how this process, which is on no host, reaches a database: by its socket."""
    account = url.rpartition("@")[0]
    return f"{account}@/orchestrator?host={host.path(DATA)}"
