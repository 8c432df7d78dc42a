"""What every database must keep of verdicts on pools."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.spec.hardware import Role
from orchestrator.core.trust.qualification import Standing, Verdict
from orchestrator.ports import Verdicts
from tests.fakes import MemoryStore

VERDICT = Verdict(
    pool="ascend",
    role=Role.TRAIN,
    identity="abc",
    standing=Standing.REFUSED,
    reasons=("operators aten::silu: missing", "interconnect: EI0002"),
    run="qualify-1",
    at=1.5,
    until=8.5,
)


@pytest.fixture
def store(kept: SqlDatabase | MemoryStore) -> Verdicts:
    return kept


def test_a_verdict_comes_back_as_it_was_given(store: Verdicts) -> None:
    assert list(store.verdicts()) == []
    store.note_verdict(VERDICT)
    assert list(store.verdicts()) == [VERDICT]


def test_the_last_verdict_on_a_pool_in_a_role_stands(store: Verdicts) -> None:
    later = replace(VERDICT, standing=Standing.QUALIFIED, reasons=(), run="qualify-2", at=3.0)
    store.note_verdict(VERDICT)
    store.note_verdict(later)
    assert list(store.verdicts()) == [later]


def test_each_role_and_each_way_in_which_a_pool_is_configured_has_its_own(
    store: Verdicts,
) -> None:
    others = (replace(VERDICT, role=Role.SERVE), replace(VERDICT, identity="other"))
    for one in (VERDICT, *others):
        store.note_verdict(one)
    assert {(one.role, one.identity) for one in store.verdicts()} == {
        (Role.TRAIN, "abc"),
        (Role.SERVE, "abc"),
        (Role.TRAIN, "other"),
    }
