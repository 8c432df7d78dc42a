"""A save that the storage refuses is told and passed over, a few times in a row."""

from __future__ import annotations

import errno
import subprocess
import threading
from collections.abc import Sequence

import pytest

from orchestrator.adapters.clock import SystemClock
from orchestrator.core.errors import DamagedError, StorageError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.settings import PATIENT, AttemptSettings
from orchestrator.core.spec.policy import Adjust
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed, LogLine, Message, Points, Saved, Succeeded
from tests.interposed import Interposed
from tests.worker.conftest import Bench
from tests.worker.saves import SAVES, went_on_from

GANG = """
    def job(ctx, *, steps=3):
        for step in range(1, steps + 1):
            ctx.save_checkpoint(step, lambda f: (f / "w").write_text(f"{ctx.rank}"))
            ctx.log(f"saves {step}")

    def reads_back(ctx):
        ctx.save_checkpoint(1, lambda f: (f / "w").write_text("x"))
        ctx.saved_checkpoint(1)

    def each_its_own(ctx):
        step = 1 if ctx.rank == 0 else 2
        ctx.save_checkpoint(step, lambda f: (f / "w").write_text("x"))
        if ctx.rank == 0:
            ctx.saved_checkpoint(1)
    """


def refusing(bench: Bench, method: str, *steps: int, part: str = "") -> None:
    """Let the store refuse what `method` does with checkpoints of these steps."""

    def refuse(*given: object) -> None:
        text = " ".join(map(str, given))
        if any(f"step-{step:010d}" in text for step in steps) and part in text:
            raise StorageError("the storage is away; check its storage")

    bench.store = Interposed(bench.store, **{method: refuse})  # type: ignore[assignment]


def lines(messages: Sequence[Message]) -> list[str]:
    return [message.text for message in messages if isinstance(message, LogLine)]


@pytest.mark.parametrize("method", ["part", "add", "seal"])
def test_a_save_that_the_storage_refuses_is_told_and_the_job_goes_on(
    bench: Bench, method: str
) -> None:
    refusing(bench, method, 2)
    said = bench.messages(SAVES, params={"steps": 4})
    assert isinstance(said[-1], Succeeded)
    assert [m.step for m in said if isinstance(m, Saved)] == [1, 3, 4]
    assert (
        "checkpoint of step 2 was not saved: the storage is away; check its storage; the job goes "
        "on, 2 more in a row may fail"
    ) in lines(said)
    skipped = [m for m in said if isinstance(m, Points) and "checkpoint/skipped" in m.values]
    assert [(m.step, m.values) for m in skipped] == [(2, {"checkpoint/skipped": 1.0})]
    assert bench.checkpoints() == ["1-3-1", "3-3-1", "4-3-1"]


def test_when_too_many_in_a_row_are_refused_the_attempt_fails_by_its_storage(
    bench: Bench,
) -> None:
    steps = range(2, 2 + PATIENT.skipped_saves + 1)
    refusing(bench, "seal", *steps)
    failure = bench.failure(SAVES, params={"steps": 20})
    assert failure.kind is FailureKind.STORAGE
    assert failure.evidence == "the storage is away; check its storage"
    assert failure.step in {steps[-1], steps[-1] + 1}
    assert went_on_from(bench, steps=0, attempt=2) == "(1, 'w0')"


def test_how_many_in_a_row_may_be_refused_is_a_setting(bench: Bench) -> None:
    refusing(bench, "seal", 2, 3)
    waits = AttemptSettings(skipped_saves=1)
    failure = bench.failure(SAVES, params={"steps": 20}, waits=waits)
    assert failure.kind is FailureKind.STORAGE
    assert failure.step in {3, 4}


def test_those_that_are_not_in_a_row_are_passed_over(bench: Bench) -> None:
    refusing(bench, "seal", *range(2, 20, 2))
    said = bench.messages(SAVES, params={"steps": 20})
    assert isinstance(said[-1], Succeeded)
    assert [m.step for m in said if isinstance(m, Saved)] == [*range(1, 20, 2), 20]


def test_a_job_that_swallows_the_last_refusal_does_not_succeed(bench: Bench) -> None:
    refusing(bench, "seal", *range(1, 10))
    failure = bench.failure("""
        def job(ctx):
            for step in range(1, 10):
                try:
                    ctx.save_checkpoint(step, lambda f: (f / "w").write_text("x"))
                except Exception:
                    pass
        """)
    assert failure.kind is FailureKind.STORAGE


def test_what_is_damaged_is_not_passed_over(bench: Bench) -> None:
    def damaged(*_words: object) -> None:
        raise DamagedError("lacks file 'w'")

    bench.store = Interposed(bench.store, seal=damaged)  # type: ignore[assignment]
    failure = bench.failure(SAVES, params={"steps": 1})
    assert failure.kind is FailureKind.DATA


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (f"OSError({errno.ENOSPC}, 'full')", "full at {disk!r}; free some space"),
        (
            f"OSError({errno.EDQUOT}, 'full')",
            "full at {disk!r}; free some space within the quota, or raise it",
        ),
        (
            f"OSError({errno.EFBIG}, 'large')",
            (
                "large at {disk!r}; raise the limit on the size of files (ulimit -f, or the file "
                "system's)"
            ),
        ),
        (f"OSError({errno.EIO}, 'broken')", "broken; check its storage"),
        (f"OSError({errno.ESTALE}, 'stale')", "stale; check its storage"),
        (
            "RuntimeError('PytorchStreamWriter failed writing file data/0: file write failed')",
            "PytorchStreamWriter failed writing file data/0: file write failed {at}",
        ),
        (
            "Exception('Error while serializing: I/O error: No space left (os error 28)')",
            "Error while serializing: I/O error: No space left (os error 28) {at}",
        ),
    ],
)
def test_a_file_system_that_refuses_the_job_is_the_storage_whoever_writes(
    bench: Bench, error: str, told: str
) -> None:
    said = bench.messages(f"""
        def job(ctx):
            def write(folder):
                (folder / "w").write_text("half")
                raise {error}
            ctx.save_checkpoint(5, write)
        """)
    assert isinstance(said[-1], Succeeded)
    [line] = lines(said)
    asked = ["df", "--output=target", str(bench.stored)]
    disk = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()[-1]
    words = told.format(disk=disk, at=f"(at {disk!r}); check its storage")
    assert line.startswith(
        f"checkpoint of step 5 was not saved: checkpoint of step 5: {words}; the job goes on"
    )
    assert bench.scratch() == []


def test_a_folder_that_goes_while_the_job_writes_is_the_storage(bench: Bench) -> None:
    said = bench.messages("""
        import shutil
        def job(ctx):
            def write(folder):
                shutil.rmtree(folder.parent)  # as a file system that is unmounted
                (folder / "w").write_text("x")
            ctx.save_checkpoint(5, write)
        """)
    assert isinstance(said[-1], Succeeded)
    [line] = lines(said)
    assert "checkpoint of step 5: its folder is gone; check its storage; the job goes on" in line


@pytest.mark.parametrize("error", ["ValueError('mine')", "OSError('mine')", "KeyError('mine')"])
def test_what_the_job_does_wrong_while_it_writes_is_its_own(bench: Bench, error: str) -> None:
    failure = bench.failure(f"""
        def job(ctx):
            def write(folder):
                raise {error}
            ctx.save_checkpoint(5, write)
        """)
    assert "mine" in failure.evidence
    assert failure.kind is not FailureKind.STORAGE


def test_a_claim_that_the_storage_refuses_is_made_with_the_next_save(bench: Bench) -> None:
    refusals = iter([True])

    def refuse(name: str, _text: str) -> None:
        if "claims" in name and next(refusals, False):
            raise StorageError("away")

    bench.store = Interposed(bench.store, mark=refuse)  # type: ignore[assignment]
    bench.result(SAVES, job="saves_twice")
    assert went_on_from(bench, steps=2, attempt=2) == "(2, 'w1')"


# --- several workers ----------------------------------------------------------------------------


def gang(bench: Bench, job: str = "job", **changes: object) -> list[list[Message]]:
    bench.clock = SystemClock()
    bench.write(GANG)
    return bench.together(bench.request(job, needs=Needs(workers=2), **changes))


@pytest.mark.parametrize("rank", [0, 1])
def test_all_workers_pass_over_what_the_storage_refuses_one_of_them(
    bench: Bench, rank: int
) -> None:
    refusing(bench, "add", 2, part=f"rank-{rank}")
    said = gang(bench)
    assert [type(messages[-1]) for messages in said] == [Succeeded, Succeeded]
    assert [m.step for m in said[0] if isinstance(m, Saved)] == [1, 3]
    told = "the storage is away; check its storage"
    if rank == 1:
        assert any(f"was not saved: {told}" in line for line in lines(said[1]))
        told = f"worker 1: {told}"
    assert any(f"was not saved: {told}" in line for line in lines(said[0]))


@pytest.mark.parametrize(("rank", "kind"), [(0, None), (1, FailureKind.STORAGE)])
def test_a_worker_for_which_rank_0_would_wait_fails_where_it_can_not_even_say_so(
    bench: Bench, rank: int, kind: FailureKind | None
) -> None:
    def full(_folder: object, name: str, _part: str) -> None:
        if "step-0000000001" in name:
            raise StorageError("no room; free some space")

    def no_room(name: str, _text: str) -> None:
        if "acknowledged" in name:
            raise StorageError("no room for a mark either")

    bench.store = Interposed(bench.store, add=full, mark=no_room)  # type: ignore[assignment]
    bench.clock = SystemClock()
    bench.write(GANG)
    asked = bench.request(params={"steps": 1}, needs=Needs(workers=2))
    [*_, batch] = bench.stream(asked, rank)
    failure = getattr(batch[-1], "failure", None)
    assert getattr(failure, "kind", None) == kind
    assert failure is None or failure.evidence == "no room; free some space"


def test_a_checkpoint_that_was_refused_can_be_read_back_by_nobody(bench: Bench) -> None:
    refusing(bench, "seal", 1)
    for messages in gang(bench, "reads_back"):
        assert isinstance(messages[-1], Failed)
        assert messages[-1].failure.kind is FailureKind.STORAGE
        assert "the storage is away" in messages[-1].failure.evidence


class QuickClock:
    """Real time, eleven times as fast between two looks as the looks at what moves are apart."""

    def __init__(self) -> None:
        self._at = 0.0

    def now(self) -> float:
        self._at += 6.0
        return self._at

    def monotonic(self) -> float:
        return self.now()

    def sleep(self, seconds: float) -> None:
        threading.Event().wait(0.002)


def test_workers_that_save_after_other_steps_are_told_so(bench: Bench) -> None:
    bench.write(GANG)
    bench.clock = QuickClock()
    said = bench.together(bench.request("each_its_own", needs=Needs(workers=2)))
    outcome = said[0][-1]
    assert isinstance(outcome, Failed)
    assert outcome.failure.kind is FailureKind.USER_CODE
    assert outcome.failure.evidence == (
        "worker 1 saved the checkpoint of step 2 and none of step 1; every worker of a gang must "
        "make the same calls"
    )


def test_a_worker_that_is_slow_but_moves_is_waited_for(bench: Bench) -> None:
    bench.clock = QuickClock()
    bench.write("""
        import threading
        def job(ctx):
            def write(folder):
                for size in range(400 if ctx.rank else 1):
                    (folder / "w").write_text("x" * size)
                    threading.Event().wait(0.002)
            ctx.save_checkpoint(1, write)
        """)
    said = bench.together(bench.request(needs=Needs(workers=2)))
    assert isinstance(said[0][-1], Succeeded), said[0][-1]
    assert bench.clock.now() > 1000.0
    assert bench.checkpoints() == ["1-3-1"]


# --- rolling back -------------------------------------------------------------------------------


def test_one_that_is_kept_leaves_the_one_before_for_a_roll_back(bench: Bench) -> None:
    went_on_from(bench, steps=5, attempt=1, keep=1)
    assert bench.checkpoints() == ["4-3-1", "5-3-1"]
    assert went_on_from(bench, steps=0, attempt=2, adjust=Adjust(before=5)) == "(4, 'w3')"


def test_a_roll_back_for_which_none_is_left_says_that_it_begins_anew(bench: Bench) -> None:
    went_on_from(bench, steps=5, attempt=1, keep=1)
    said = bench.lines(SAVES, params={"steps": 0}, attempt=2, adjust=Adjust(before=4))
    assert said == ["no checkpoint of a step below 4 is left: the job begins anew", "from None"]
