"""Which environment variables a config may set."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.spec.environment_variables import secret_sources, whose_secret
from orchestrator.core.spec.hardware import Accelerator, Pool
from orchestrator.core.spec.stages import Stage
from orchestrator.core.trust.qualification import identity
from tests.build import accelerator, fleet, pool, stage
from tests.core.test_checks import CHAT, lines

NO_SOURCE = "is neither the name of a variable nor of a file; write VARIABLE, or /PATH of a file"
PLACE = "says which place a worker has; leave it out: it is set for each worker"


def on(**changes: object) -> list[str]:
    return lines(stage("s"), on=fleet(pool("a", **changes)))


def with_stage(**changes: object) -> list[str]:
    return lines(stage("s", **changes))


def test_variables_of_a_stage_go_before_those_of_its_pool_and_of_the_chip() -> None:
    chip = accelerator(env={"A": "chip", "B": "chip", "C": "chip"}, secrets={"T": "CHIP"})
    work, where = (
        stage("s", env={"A": "stage"}, secrets={"U": "/run/u"}),
        pool("a", chip=chip, env={"B": "pool"}, secrets={"T": "POOL"}),
    )
    assert lines(work, on=fleet(where)) == []
    assert where.variables == {"A": "chip", "B": "pool", "C": "chip"}
    assert secret_sources(work, where) == {"T": "POOL", "U": "/run/u"}
    assert whose_secret("U", work, where) == "pipeline.stages.s"
    assert whose_secret("T", work, where) == "fleet.pools.a"
    assert whose_secret("T", work, replace(where, secrets={})) == "fleet.pools.a.accelerator"


def test_what_an_interpreter_is_started_with() -> None:
    assert pool("a").runtime_env({}) == {}
    assert pool("a", python="/p").runtime_env({"A": "1"}) == {
        "py_executable": "/p",
        "env_vars": {"A": "1"},
    }


def test_what_a_worker_is_told_by_its_place_is_not_set_by_hand() -> None:
    chip = accelerator(visible_devices="MLU_VISIBLE_DEVICES", env={"MLU_VISIBLE_DEVICES": "0"})
    shown = "fleet.pools.a.accelerator.env.MLU_VISIBLE_DEVICES: 'MLU_VISIBLE_DEVICES'"
    assert on(chip=chip) == [f"{shown} {PLACE}"]
    assert on(secrets={"RANK": "R"}) == [f"fleet.pools.a.secrets.RANK: 'RANK' {PLACE}"]
    assert with_stage(env={"MASTER_ADDR": "h"}) == [
        f"pipeline.stages.s.env.MASTER_ADDR: 'MASTER_ADDR' {PLACE}"
    ]


@pytest.mark.parametrize("name", ["A-B", "", "1A", "A=B", "A B"])
def test_a_name_that_no_variable_can_have_is_refused(name: str) -> None:
    (line,) = with_stage(env={name: "1"})
    assert "is no name of an environment variable; use letters, digits and _" in line


def test_a_value_of_two_places_and_one_that_is_no_source_are_refused() -> None:
    assert with_stage(env={"A": "1", "B": "\0"}, secrets={"A": "X", "C": "hf_abc-def"}) == [
        "pipeline.stages.s.env.B: '\\x00' holds a NUL; take it out",
        "pipeline.stages.s.secrets.A: 'A' stands in env too; leave one of them out",
        f"pipeline.stages.s.secrets.C: {NO_SOURCE}",
    ]


def test_replicas_may_have_secrets_as_workers_have() -> None:
    serving: Stage = stage("s", job=None, endpoint=CHAT, inputs={}, secrets={"T": "X"})
    assert not any("secrets" in line for line in lines(serving))


def test_a_verdict_is_of_the_variables_but_not_of_secrets_and_interfaces() -> None:
    def of(chip: Accelerator, **changes: object) -> str:
        where: Pool = pool("a", chip=chip, **changes)
        return identity(where)

    plain = of(accelerator())
    assert of(accelerator(secrets={"T": "X"}, interface_variable="NCCL_SOCKET_IFNAME")) == plain
    assert of(accelerator(timeout_variable="HCCL_EXEC_TIMEOUT")) == plain
    joining = {"joining_variable": "HCCL_CONNECT_TIMEOUT", "joining_seconds": (120.0, 7200.0)}
    assert of(accelerator(**joining)) == plain
    assert of(accelerator(env={"A": "1"})) != plain
    assert of(accelerator(), env={"A": "1"}) == of(accelerator(env={"A": "1"}))
