"""Work beside a job is waited for as long as its process does anything."""

from __future__ import annotations

import itertools
import threading

import pytest

from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.settings import AttemptSettings
from orchestrator.worker.background import Background
from tests.worker.conftest import Bench


def nothing() -> None: ...


def test_work_that_ends_is_waited_for_and_what_it_raised_kept() -> None:
    def work() -> None:
        raise ValueError("bad")

    beside = Background(work, "beside")
    assert beside.outlast(nothing, 10.0)
    assert beside.done
    assert isinstance(beside.error, ValueError)
    with pytest.raises(ValueError, match="bad"):
        beside.check()


def test_work_of_a_process_that_rests_is_given_up() -> None:
    go = threading.Event()
    beside = Background(lambda: go.wait(20) and None, "beside")
    assert not beside.outlast(nothing, 0.1)
    go.set()


def test_work_of_a_process_that_moves_is_waited_for() -> None:
    looks = itertools.count()
    go = threading.Event()

    def moves() -> tuple[int, int]:
        look = next(looks)
        if look == 10:
            go.set()
        return look, 0

    beside = Background(lambda: go.wait(20) and None, "beside")
    assert beside.outlast(nothing, 0.12, every=0.05, done=moves)
    assert next(looks) > 10


def test_who_waits_can_be_called_off() -> None:
    go = threading.Event()

    def called_off() -> None:
        raise InterruptedError

    beside = Background(lambda: go.wait(20) and None, "beside")
    with pytest.raises(InterruptedError):
        beside.outlast(called_off, 10.0)
    go.set()


def test_a_save_in_which_nothing_moves_ends_the_attempt_by_its_storage(
    bench: Bench,
) -> None:
    failure = bench.failure(
        """
        import threading
        def job(ctx):
            ctx.save_checkpoint(7, lambda folder: threading.Event().wait(0.5))
        """,
        waits=AttemptSettings(checkpoint=0.1),
    )
    assert failure.kind is FailureKind.STORAGE
    assert failure.evidence == (
        "the checkpoint of step 7 is not saved, and nothing has moved for 0 s; check its storage"
    )
