"""Short ways to make the frozen values that tests start from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import yaml

from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.failures.signatures import Signature
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptPlaced,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    StageFailed,
)
from orchestrator.core.spec.hardware import Accelerator, Fleet, Pool, Role
from orchestrator.core.spec.plan import Plan, make_plan
from orchestrator.core.spec.policy import Bounds, Limits
from orchestrator.core.spec.stages import Bindings, Endpoint, Needs, Pipeline, Stage
from orchestrator.messages import AttemptRequest

REF = ArtifactRef("file:///a/model", "0" * 64, 10)


def accelerator(**changes: object) -> Accelerator:
    """Return a chip of one maker."""
    facts = {"name": "Chip 1", "vendor": "maker", "device": "cpu", "backend": "gloo", **changes}
    return Accelerator(**facts)  # type: ignore[arg-type]


def pool(name: str, *, chip: Accelerator | None = None, **changes: object) -> Pool:
    """Return a pool of eight chips on one node."""
    size = {"devices_per_node": 8, "cpus_per_node": 16, **changes}
    return Pool(name=name, accelerator=chip or accelerator(), **size)  # type: ignore[arg-type]


def fleet(*pools: Pool) -> Fleet:
    """Return a fleet of `pools`, of `a`, `b` and `c` where none are given."""
    some = pools or (pool("a"), pool("b"), pool("c"))
    return Fleet(name="test", pools={one.name: one for one in some})


def stage(name: str, *before: str, **changes: object) -> Stage:
    """Return a training stage that comes after the stages `before`."""
    facts = {"role": Role.TRAIN, "job": "jobs.noop.noop", "after": before, **changes}
    if "limits" not in facts:
        facts["limits"] = Limits()
    if "needs" not in facts:
        facts["needs"] = Needs()
    return Stage(name=name, **facts)  # type: ignore[arg-type]


def pipeline(*stages: Stage) -> Pipeline:
    """Return a pipeline of `stages`."""
    return Pipeline(name="test", stages=stages)


def bindings(first: str = "a", *fallbacks: str) -> Bindings:
    """Return bindings of every role to the same pools."""
    return Bindings(roles=dict.fromkeys(Role, first), fallbacks=dict.fromkeys(Role, fallbacks))


def plan(
    *stages: Stage, pools: Iterable[str] = ("a",), cost_limit: float | None = None, **known: Pool
) -> Plan:
    """Return a plan of `stages`, every role on `pools`: the first, then its fallbacks."""
    some = [known.get(name, pool(name)) for name in ("a", "b", "c")]
    bound = bindings(*pools)
    bounds = Bounds(cost=cost_limit)
    return make_plan(pipeline(*stages), fleet(*some), bound, bounds=bounds)


def header(planned: Plan, run: str = "run") -> RunHeader:
    """Return the header of a run of `planned`."""
    return RunHeader(run=run, plan=planned)


@cache
def documented() -> tuple[Signature, ...]:
    """Return the signatures that ship, in the order in which the config has them."""
    folder = Path(__file__).parents[1] / "conf/signatures"
    files = yaml.safe_load((folder / "documented.yaml").read_text())["defaults"]
    return tuple(
        Signature(**{**one, "kind": FailureKind(one["kind"]), "name": name})
        for file in files
        for name, one in yaml.safe_load((folder / f"{file}.yaml").read_text()).items()
    )


def failure(kind: FailureKind = FailureKind.INTERCONNECT, evidence: str = "EI0002") -> Failure:
    """Return a failure of `kind`, in a job that looks at what it shall do otherwise."""
    return Failure(
        kind=kind, evidence=evidence, pool="a", node="n1", rank=0, step=40, adjusts=True
    )


def attempt_request(stage: str = "train", **changes: object) -> AttemptRequest:
    """Return a request for the first attempt of a stage, alone on a pool `a`."""
    usual = AttemptRequest(
        run="run",
        stage=stage,
        attempt=1,
        epoch=1,
        job="jobs.noop.noop",
        params={},
        packages=(),
        code=(),
        inputs={},
        storage="",
        seed=0,
        pool=pool("a"),
        needs=Needs(),
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def deployment(
    name: str, *, pool_name: str = "a", revision: int = 1, run: str = "r2-1", **fields: object
) -> Deployment:
    """Return the deployment of revision `revision` of endpoint `name`."""
    made = Deployment(
        run=run,
        stage="serve",
        attempt=1,
        endpoint=Endpoint(name=name, engine="jobs.engines.echo.EchoEngine"),
        model=REF,
        format="bf16",
        pool=pool(pool_name),
        needs=Needs(),
        packages=("jobs",),
        code=(),
        storage="file:///artifacts",
        revision=revision,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def success(
    name: str, ref: ArtifactRef | None, pool_name: str = "a", **metrics: float
) -> tuple[Event, ...]:
    """Events of a stage's first attempt, which makes an artifact on a node of the pool."""
    return (
        AttemptStarted(name, 1, pool_name),
        AttemptPlaced(name, 1, (f"{pool_name}-0",)),
        AttemptSucceeded(name, 1, ref, metrics),
    )


def refusal(name: str, kind: FailureKind, pool_name: str = "a") -> tuple[Event, ...]:
    """Events of a stage whose first attempt fails it."""
    evidence = "kl_mean is 3"
    return (
        AttemptStarted(name, 1, pool_name),
        AttemptFailed(name, 1, failure(kind, evidence)),
        StageFailed(name, f"{kind}: {evidence}"),
    )
