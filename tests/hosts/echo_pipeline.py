"""A pipeline that serves a model which costs nothing to make or to ask: it answers by an echo."""

from __future__ import annotations

from tests.hosts.namespaces import Host
from tests.hosts.site import OURS

PIPELINE = """\
defaults:
  - /endpoint@stages.serve.endpoint: default
  - _self_
name: echo
stages:
  make: {job: making.make, role: prepare, needs: {devices: 0}}
  serve:
    role: serve
    inputs: {model: make}
    endpoint: {engine: jobs.engines.echo.EchoEngine, rollout: {hold: 1}}
"""
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


def write_echo(host: Host, model: str = "model") -> None:
    """Write the pipeline and its job into the working folder of a host; `model` tells models."""
    host.write("my/pipeline/echo.yaml", PIPELINE)
    host.write("making.py", MAKING.replace("MODEL", model))


def gateway(host: Host) -> str:
    """Return the address of the gateway of a host."""
    return f"http://{host.address}:8000"
