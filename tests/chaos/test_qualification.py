"""Chips that die, hang or lose a collective while they are checked: their pool is refused.

By hand: `make chaos`.
"""

from __future__ import annotations

import pytest

from tests.conftest import Workplace

HANG_SECONDS = 20

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("fault", "role", "why"),
    [
        ("what: die, at_step: 9, rank: 1", "train", "gang"),
        ("what: hang, at_step: 9, rank: 1", "train", "gang hang"),
        ("what: drop, at_step: 9, rank: 1, signature: hccl_timeout", "train", "gang interconnect"),
        ("what: raise, at_step: 2, signature: npu_oom", "serve", "nodes out_of_memory"),
    ],
    ids=["die", "hang", "drop", "raise"],
)
def test_a_chip_that_fails_is_refused(
    workplace: Workplace, fault: str, role: str, why: str
) -> None:
    planted = f"++fleet.pools.ascend.emulation.faults=[{{{fault}}}]"
    done = workplace.run(
        *("qualify", "ascend", "--quick", "--role", role, "fleet=rehearsal", planted),
        *(f"pipeline.stages.{name}.watch.hang={HANG_SECONDS}" for name in ("nodes", "gang")),
        seconds=300,
    )
    print(f"\n{done.stdout[-1500:]}")
    assert done.returncode == 100, done.stdout + done.stderr
    assert why in done.stdout
    words = ("plan", "pipeline=smoke", "fleet=rehearsal", f"roles.{role}=ascend", planted)
    assert f"pool 'ascend' was refused for {role}" in workplace.run(*words).stdout
