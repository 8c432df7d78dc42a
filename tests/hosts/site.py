"""A user's site: a cluster of several hosts, with two pools that are not emulated, and services.

A CPU plays a chip: it has a Ray resource of its own, and is trained and served on as it is. The
configs lie in the folder `my` of whoever types commands.
"""

from __future__ import annotations

import compileall
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.failures.kinds import Failure
from orchestrator.core.runs.run import Attempt, Run
from orchestrator.core.runs.states import RunState
from orchestrator.service import runs
from orchestrator.supervisor.record import wait
from tests.hosts.namespaces import ROOT, Host, Network, Process, several_hosts
from tests.hosts.services import BUCKET, Servers, from_here, of_database

RESOURCES = {"hopper": "LAB_A", "atlas": "LAB_B"}
POOLS = {"hopper": [1], "atlas": [2]}  # the hosts of each
CHIP = """\
name: {name}
vendor: {vendor}
device: cpu
backend: gloo
reduces: [uint8, int8, int32, int64, float16, bfloat16, float32, float64]
resource: {resource}
visible_devices: {resource}_VISIBLE
memory_gb: 1
formats: [bf16, fp32]
price_per_hour: 1.0
source: "a core of the host"
"""
ROLES = "roles: {prepare: hopper, train: hopper, serve: atlas}"
FALLBACKS = "fallbacks: {train: [atlas], serve: [hopper]}"
STORAGE = f"storage: {{uri: s3://{BUCKET}}}"
# The pipeline `smoke`, cut to seconds.
SHORT = """\
defaults:
  - /job@stages.data: data_arithmetic
  - /job@stages.pretrain: pretrain
  - /job@stages.export: export
  - /endpoint@stages.serve.endpoint: default
  - _self_
name: short
stages:
  data: {params: {draws: 200}}
  pretrain:
    inputs: {data: data}
    needs: {workers: 2}
    params:
      {steps: 2, batch_size: 8, warmup: 1, log_every: 1, checkpoint_every: 2, validation_rows: 8}
  export: {inputs: {model: pretrain}}
  serve: {role: serve, inputs: {model: export}, endpoint: {rollout: {hold: 1}}}
"""
# A module that sets the clock of the processes that find it.
CLOCK = """\
import time

_now, _nanoseconds = time.time, time.time_ns
time.time = lambda: _now() + {seconds}
time.time_ns = lambda: _nanoseconds() + {seconds} * 10**9
"""
# A job that goes on from its checkpoints, step by step.
LONG = """\
name: long
stages:
  train: {job: steps.steps, role: train, params: {to: 80}}
"""
STEPS = """\
import time
from functools import partial


def steps(ctx, *, to):
    found = ctx.latest_checkpoint()
    begun = int((found.path / "step").read_text()) if found else 0
    for step in range(begun + 1, to + 1):
        time.sleep(0.2)
        print("step", step, flush=True)
        ctx.metrics({"train/loss": 1.0}, step=step)
        if step % 5 == 0:
            ctx.save_checkpoint(step, partial(_write, step))
    (ctx.output / "step").write_text(str(to))
    return {"begun": begun}


def _write(step, folder):
    (folder / "step").write_text(str(step))
"""
OURS = ("--config-dir", "my", "fleet=lab", "qualification.required=false")
STEPPING = ("pipeline=long", *OURS, "jobs.packages=[steps]", "jobs.code=[.]", "tracking=none")
GANG = "pipeline.stages.train.needs.workers=2"
SECONDS = 240.0


def to(steps: int) -> tuple[str, ...]:
    """Return the words that launch a run of so many steps."""
    return (*STEPPING, f"pipeline.stages.train.params.to={steps}")


@dataclass
class Site:
    """The hosts of a user, and what is typed there."""

    network: Network
    servers: Servers
    store: SqlDatabase
    address: str
    typed: list[Process] = field(default_factory=list)

    def orchestrator(
        self, host: Host, *words: str, seconds: float = 300.0, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Type a command on a host, and wait for its end."""
        return host.run(*host.root.orchestrator, *words, seconds=seconds, **env)

    def do(self, host: Host, *words: str, seconds: float = 300.0, **env: str) -> str:
        """Type a command on a host, which does what it says; return what it prints."""
        done = self.orchestrator(host, *words, seconds=seconds, **env)
        assert done.returncode == 0, (host.name, words, done.stdout + done.stderr)
        return done.stdout

    def begin(self, host: Host, *words: str, **env: str) -> Process:
        """Type a command on a host that goes on."""
        argv = (*host.root.orchestrator, *words)
        self.typed.append(host.start(*argv, name=words[0], **env))
        return self.typed[-1]

    def mend(self) -> None:
        """End what was typed, put cables in and routes back, start nodes that were lost again."""
        for process in self.typed:
            process.stop()
        self.typed.clear()
        self.network.mend()
        self.servers.mend()

    def run(self) -> Run:
        """Return the newest run."""
        return runs.load(self.store, self.store.runs(1)[0])

    def launch(self, host: Host, *words: str) -> Process:
        """Launch a run that does every step, and wait until there is one."""
        before = len(self.store.runs(1000))
        process = self.begin(host, "launch", *words, "--no-cache")
        wait(lambda: len(self.store.runs(1000)) > before or not process.running, 120.0, tick=0.2)
        assert process.running, process.printed()
        return process

    def attempts(self) -> tuple[Attempt, ...]:
        """Return the attempts of the newest run to train."""
        return self.run().stages["train"].attempts

    def failures(self) -> list[Failure]:
        """Return how those of them ended that failed."""
        return [attempt.failure for attempt in self.attempts() if attempt.failure]

    def until_saved(self, step: int, seconds: float = SECONDS) -> Run:
        """Wait until the newest run has a checkpoint of such a step, or a later one."""

        def saved() -> bool:
            return max(self.run().stages["train"].checkpoints, default=0) >= step

        assert wait(saved, seconds, tick=0.5), [process.printed() for process in self.typed]
        return self.run()

    def until_resumed(self, number: int) -> Attempt:
        """Wait until attempt `number` of the newest run goes on from a checkpoint."""

        def resumed() -> bool:
            known = self.attempts()
            return len(known) >= number and known[number - 1].resumed is not None

        assert wait(resumed, SECONDS, tick=0.5), self.seen()
        return self.attempts()[number - 1]

    def seen(self) -> str:
        """Return what the user sees: the terminals, then `status` of the newest run."""
        status = self.orchestrator(self.network.hosts[0], "status", self.run().header.run)
        lines = (process.printed() for process in self.typed)
        return "\n".join([*lines, "$ orchestrator status", status.stdout, status.stderr])

    def ended(self, process: Process) -> int:
        """Wait for the end of a command, and return its exit status."""
        assert wait(lambda: not process.running, SECONDS, tick=0.2), self.seen()
        return process.finish()

    def finished(self, process: Process) -> None:
        """Wait for the end of a command; what it did has succeeded."""
        assert self.ended(process) == 0, self.seen()
        print(self.seen())
        assert self.run().state is RunState.SUCCEEDED


def fleet(chips: Mapping[str, str], *settings: str) -> str:
    """Return the config of a fleet `lab`: of each pool a node with two chips, `chips` by pool."""
    defaults = [
        f"  - /accelerator@fleet.pools.{pool}.accelerator: {chips[pool]}" for pool in chips
    ]
    pools = [f"    {pool}: {{nodes: 1, devices_per_node: 2, cpus_per_node: 4}}" for pool in chips]
    fleet = ("  - _self_", "fleet:", "  name: lab", "  pools:", *pools)
    return "\n".join(["# @package _global_", "defaults:", *defaults, *fleet, *settings, ""])


def configs(host: Host) -> None:
    """Write the configs of a user of these pools into their working folder."""
    for pool, resource in RESOURCES.items():
        chip = CHIP.format(name=f"Chip of {pool}", vendor=f"maker of {pool}", resource=resource)
        host.write(f"my/accelerator/{resource.lower()}.yaml", chip)
    chips = {pool: resource.lower() for pool, resource in RESOURCES.items()}
    host.write("my/fleet/lab.yaml", fleet(chips, ROLES, FALLBACKS, STORAGE))
    host.write("my/pipeline/short.yaml", SHORT)
    host.write("my/pipeline/long.yaml", LONG)


@contextmanager
def site(
    logs: Path,
    *,
    hosts: int = 4,
    pools: Mapping[str, Sequence[int]] = POOLS,
    services: int = 3,
    mlflow: bool = True,
    head: Sequence[str] = (),
    **env: str,
) -> Iterator[Site]:
    """Have so many hosts of this machine's root, and on them what `site_on` has."""
    for package in ("orchestrator", "jobs"):  # hosts can't, for they only read it
        compileall.compile_dir(ROOT / package, quiet=1)
    with (
        several_hosts(hosts, logs) as network,
        site_on(network, pools=pools, services=services, mlflow=mlflow, head=head, **env) as built,
    ):
        yield built


@contextmanager
def site_on(
    network: Network,
    *,
    pools: Mapping[str, Sequence[int]] = POOLS,
    services: int = 3,
    mlflow: bool = True,
    head: Sequence[str] = (),
    **env: str,
) -> Iterator[Site]:
    """Have a head on host 0, nodes of each pool on the others, services on host `services`.

    `head` are further words of its start; `env` is given to Ray's nodes and to commands.
    """
    servers, shared = Servers(), network.hosts[services]
    database = servers.postgres(shared)
    bucket = servers.s3(shared)
    nodes = {**bucket, **env}
    variables = {
        **nodes,
        "ORCHESTRATOR_DATABASE": database,
        "ORCHESTRATOR_SECRET": secrets.token_hex(16),
    }
    if mlflow:
        runs = of_database(database, "mlflow")
        uri = servers.mlflow(shared, runs, f"s3://{BUCKET}/mlflow", **bucket)
        variables["MLFLOW_TRACKING_URI"] = uri
    address = servers.ray_head(network.hosts[0], *head, **nodes)
    variables["RAY_ADDRESS"] = address
    for host in network.hosts:
        host.env.update(variables)
    secret = variables["ORCHESTRATOR_SECRET"].encode()
    store = SqlDatabase(from_here(shared, database), secret=lambda: secret)
    built = Site(network, servers, store, address)
    for pool, numbers in pools.items():
        for number in numbers:
            servers.ray_node(network.hosts[number], address, pool, RESOURCES[pool], **nodes)
    for host in network.hosts:
        configs(host)
    try:
        yield built
    finally:
        store.close()
