"""What a pool is asked for is what holds on that pool."""

from __future__ import annotations

import pytest

from orchestrator.control.requests import Workbench, deployment
from orchestrator.control.reuse import never_reuse
from orchestrator.core.decide import Start
from orchestrator.core.fold import begin
from orchestrator.core.hardware import Role
from orchestrator.core.spec import Endpoint, Scale
from tests.build import REF, header, plan, stage

BENCH = Workbench(packages=(), code=(), storage="file:///s", reuse_key=never_reuse)


@pytest.mark.parametrize(("pool", "bounds"), [("a", (1, 4)), ("b", (2, 8))])
def test_a_deployment_has_the_bounds_of_its_pool(pool: str, bounds: tuple[int, int]) -> None:
    scale = {"b": Scale(replicas=2, max_replicas=8)}
    endpoint = Endpoint(name="chat", engine="jobs.engines.Mine", max_replicas=4, scale=scale)
    serve = stage("s", role=Role.SERVE, job=None, endpoint=endpoint, inputs={"model": "t"})
    run = begin(header(plan(stage("t"), serve, pools=("a", "b"))))
    made = deployment(run, BENCH, Start("s", 1, pool), REF).endpoint
    assert (made.replicas, made.max_replicas) == bounds
