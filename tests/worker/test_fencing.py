"""Attempts of a stage and its checkpoints: who may not save any more, and what is kept."""

from __future__ import annotations

import platform

import pytest

from orchestrator.core.artifact import MANIFEST_NAME
from orchestrator.core.errors import ArtifactError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed, LogLine, Succeeded
from tests.interposed import Interposed
from tests.worker.conftest import Bench
from tests.worker.saves import SAVES, begin, went_on_from

# --- the fence ----------------------------------------------------------------------------------


def test_an_attempt_that_was_followed_commits_nothing(bench: Bench) -> None:
    went_on_from(bench, steps=2, attempt=1)
    stale, module = begin(bench, 2)
    bench.store.mark("checkpoints/r2-1/train/claims/0003-0003-open", "")
    module.go.set()
    outcome = [message for batch in stale for message in batch][-1]
    assert isinstance(outcome, Failed)
    assert outcome.failure.kind is FailureKind.CANCELLED
    assert outcome.failure.evidence == (
        "attempt 2 of epoch 3 must not save any more: attempt 3 of epoch 3 has claimed "
        "'checkpoints/r2-1/train'"
    )
    assert not bench.folder_of(3, attempt=2).exists()


def test_a_late_checkpoint_is_refused_by_name_on_its_node_and_in_the_log_of_the_run(
    bench: Bench,
) -> None:
    stale, module = begin(bench, 1)
    bench.store.mark("checkpoints/r2-1/train/claims/0003-0002-anew", "")
    module.go.set()
    said = [message.text for b in stale for message in b if isinstance(message, LogLine)]
    refusal = (
        f"checkpoint of step 1 of worker 0 on {platform.node()!r} is refused: attempt 1 of epoch "
        "3 must not save any more: attempt 2 of epoch 3 has claimed 'checkpoints/r2-1/train'"
    )
    assert said[-1] == refusal
    after = bench.lines(SAVES, params={"steps": 3}, attempt=3)
    assert after.count(refusal) == 1
    assert bench.store.names("checkpoints/r2-1/train/refused") == []


def test_what_was_saved_before_a_newer_attempt_came_is_not_said_to_be_refused(
    bench: Bench,
) -> None:
    store = bench.store

    def followed(*_given: object) -> None:
        store.mark("checkpoints/r2-1/train/claims/0003-0002-open", "")

    bench.store = Interposed(store, seal=followed)  # type: ignore[assignment]
    lines = bench.lines(SAVES, params={"steps": 3})
    refused = [line for line in lines if "is refused" in line]
    assert [line.partition(" of worker")[0] for line in refused] == ["checkpoint of step 2"]
    assert bench.checkpoints() == ["1-3-1"]


def test_a_late_worker_that_is_not_rank_0_writes_no_part(bench: Bench) -> None:
    bench.store.mark("checkpoints/r2-1/train/claims/0003-0002-anew", "")
    failure = bench.failure(SAVES, job="anew", rank=1, needs=Needs(workers=2))
    assert failure.kind is FailureKind.CANCELLED
    assert "attempt 1 of epoch 3 must not save any more" in failure.evidence
    assert not bench.folder_of(1).exists()


def test_what_slips_past_the_fence_is_not_gone_on_from(bench: Bench) -> None:
    went_on_from(bench, steps=2, attempt=1)
    assert went_on_from(bench, steps=3, attempt=2) == "(2, 'w1')"
    meta = {"step": "9", "epoch": "3", "attempt": "1"}
    name = "checkpoints/r2-1/train/step-0000000009-0003-0001"
    bench.artifact(name, {"w": b"stale"}, meta)
    assert went_on_from(bench, steps=0, attempt=3) == "(3, 'w2')"


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_attempt_that_comes_too_late_goes_on_from_nothing(bench: Bench, attempt: int) -> None:
    went_on_from(bench, steps=1, attempt=2)
    failure = bench.failure(SAVES, params={"steps": 2}, attempt=attempt)
    assert failure.kind is FailureKind.CANCELLED
    assert ("must not save any more" if attempt == 1 else "has run already") in failure.evidence


def test_a_newer_epoch_goes_before_any_number(bench: Bench) -> None:
    went_on_from(bench, steps=1, attempt=9)
    assert went_on_from(bench, steps=0, attempt=2, epoch=4) == "(1, 'w0')"


def test_an_attempt_that_is_followed_while_it_chooses_is_refused(bench: Bench) -> None:
    went_on_from(bench, steps=1, attempt=1)

    def followed(_name: str, *, mine: object) -> None:
        del mine
        bench.store.mark("checkpoints/r2-1/train/claims/0004-0003-open", "")

    bench.store = Interposed(bench.store, load=followed)  # type: ignore[assignment]
    failure = bench.failure(SAVES, params={"steps": 2}, attempt=2)
    assert "attempt 3 of epoch 4 has claimed" in failure.evidence


# --- what is kept -------------------------------------------------------------------------------


def test_the_newest_are_kept(bench: Bench) -> None:
    went_on_from(bench, steps=6, attempt=1, keep=2)
    assert bench.checkpoints() == ["5-3-1", "6-3-1"]


def test_the_one_gone_on_from_is_kept(bench: Bench) -> None:
    went_on_from(bench, steps=3, attempt=1)
    went_on_from(bench, steps=7, attempt=2, keep=1)
    assert bench.checkpoints() == ["3-3-1", "6-3-2", "7-3-2"]


def test_what_is_torn_does_not_count_as_kept_and_is_removed(bench: Bench) -> None:
    went_on_from(bench, steps=3, attempt=1)
    (bench.folder_of(3) / MANIFEST_NAME).unlink()
    (bench.store.part("checkpoints/r2-1/train/step-0000000009-0003-0001", "rank-0")).joinpath(
        "w"
    ).write_text("half")
    assert went_on_from(bench, steps=3, attempt=2, keep=3) == "(2, 'w1')"
    assert bench.checkpoints() == ["1-3-1", "2-3-1", "3-3-2"]


def test_what_can_not_be_removed_is_told_and_no_failure(bench: Bench) -> None:
    def refuse(name: str) -> None:
        if "step-" in name:
            raise ArtifactError(f"artifact {name!r}: Permission denied")

    bench.store = Interposed(bench.store, remove=refuse)  # type: ignore[assignment]
    messages = bench.messages(SAVES, params={"steps": 3}, keep=1)
    assert isinstance(messages[-1], Succeeded)
    lines = [m.text for m in messages if isinstance(m, LogLine)]
    assert lines[-1].startswith("old checkpoints are not removed: artifact 'checkpoints/r2-1/")
    assert bench.checkpoints() == ["1-3-1", "2-3-1", "3-3-1"]
