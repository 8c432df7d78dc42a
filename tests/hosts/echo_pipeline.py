"""A pipeline that serves a model which costs nothing to make or to ask: it answers by an echo."""

from __future__ import annotations

from tests.hosts.namespaces import Host
from tests.hosts.site import OURS

# A user's own model, as any other in the bucket.
MAKING = """\
def make(ctx):
    (ctx.output / "model.bin").write_bytes(b"MODEL" * 200_000)
"""
OPEN = "gateway.host=0.0.0.0"
OWN = ("jobs.packages=[jobs,making]", "jobs.code=[.]", "tracking=none")
ECHO = ("pipeline=echo", *OURS, *OWN, OPEN)
SWITCH = ("switch", "echo", "--no-qualify")
OTHER = {"atlas": "hopper", "hopper": "atlas"}


def echoes(name: str, stage: str, settings: str) -> str:
    """Return a pipeline that serves what one stage makes, by an engine that reads no model."""
    return f"""\
defaults:
  - /endpoint@stages.serve.endpoint: default
  - _self_
name: {name}
stages:
  {stage}: {settings}
  serve:
    role: serve
    inputs: {{model: {stage}}}
    endpoint: {{engine: jobs.engines.echo.EchoEngine, rollout: {{hold: 1}}}}
"""


def write_echo(host: Host, model: str = "model") -> None:
    """Write the pipeline and its job into the working folder of a host; `model` tells models."""
    making = "{job: making.make, role: prepare, needs: {devices: 0}}"
    host.write("my/pipeline/echo.yaml", echoes("echo", "make", making))
    host.write("making.py", MAKING.replace("MODEL", model))


def gateway(host: Host) -> str:
    """Return the address of the gateway of a host."""
    return f"http://{host.address}:8000"
