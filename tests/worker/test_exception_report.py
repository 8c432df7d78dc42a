"""What an exception tells, whatever it is."""

from __future__ import annotations

import pytest

from orchestrator.core.errors import ArtifactError, StorageError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.job import KnownFailureError, ParityError
from orchestrator.worker.exception_report import (
    LONGEST_DETAIL,
    LONGEST_LINE,
    ExceptionReport,
    describe,
)
from tests.build import documented


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause  # noqa: TRY301 - to give it a traceback
    except BaseException as caught:  # noqa: BLE001 - any exception is what this is about
        return caught


class OutOfMemoryError(RuntimeError):
    """As torch calls it."""


class ArrayMemoryError(MemoryError):
    """As NumPy calls it."""


ATEN = "Could not run 'aten::_foo' with arguments from the 'NPU' backend.\nCPU: registered"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), FailureKind.HOST_MEMORY),
        (ArrayMemoryError("Unable to allocate 8 TiB"), FailureKind.HOST_MEMORY),
        (OutOfMemoryError("CUDA"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("NPU out of memory. Tried to"), FailureKind.OUT_OF_MEMORY),
        (NotImplementedError(ATEN), FailureKind.UNSUPPORTED_OPERATOR),
        (NotImplementedError("later"), FailureKind.USER_CODE),
        (FloatingPointError("loss is nan"), FailureKind.NUMERICAL_DIVERGENCE),
        (RuntimeError("[gloo/pair.cc:1] Connection closed by peer"), FailureKind.INTERCONNECT),
        (StorageError("away"), FailureKind.STORAGE),
        (ArtifactError("torn"), FailureKind.DATA),
        (ImportError("no module"), FailureKind.SET_UP),
        (SystemExit(1), FailureKind.USER_CODE),
    ],
)
def test_the_kind_is_seen_in_type_and_message(error: BaseException, kind: FailureKind) -> None:
    assert describe(raised(error), documented()).kind is kind


def test_the_kind_is_seen_in_what_caused_it() -> None:
    wrapped = raised(RuntimeError("training failed"), raised(MemoryError("x")))
    assert describe(wrapped).kind is FailureKind.HOST_MEMORY
    assert describe(wrapped).line == "RuntimeError: training failed"


def test_causes_in_a_circle_come_to_an_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert describe(first).kind is FailureKind.USER_CODE


@pytest.mark.parametrize("name", ["DistBackendError", "DistNetworkError", "DistStoreError"])
def test_errors_of_torchs_collectives_are_the_interconnect(name: str) -> None:
    error = type(name, (RuntimeError,), {})("timeout")
    assert describe(error, documented()).kind is FailureKind.INTERCONNECT


def test_the_line_is_the_first_of_the_message_without_notes() -> None:
    error = ValueError("first\nsecond")
    error.add_note("a note")
    found = describe(raised(error))
    assert found.line == "ValueError: first"
    assert found.detail.endswith("ValueError: first\nsecond\na note")


def test_the_line_of_an_exception_of_a_package_bears_its_name() -> None:
    assert describe(OutOfMemoryError("CUDA")).line.endswith(".OutOfMemoryError: CUDA")


def test_an_exception_that_can_not_be_printed_is_described() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise KeyError

    assert "BrokenError: <exception str() failed>" in describe(raised(BrokenError())).line


def test_an_endless_message_is_cut() -> None:
    found = describe(raised(ValueError("x" * 100_000)))
    assert (len(found.line), len(found.detail)) == (LONGEST_LINE, LONGEST_DETAIL)


def test_an_own_error_is_its_line_alone() -> None:
    found = describe(ArtifactError("artifact 'a' is not there"))
    assert (found.line, found.detail) == ("artifact 'a' is not there", "")


def test_an_own_error_in_user_code_shows_the_users_line() -> None:
    found = describe(raised(ArtifactError("artifact 'a' is not there")))
    assert found.line == "artifact 'a' is not there"
    assert "in raised" in found.detail


def test_a_syntax_error_is_told_with_its_file_and_line() -> None:
    with pytest.raises(SyntaxError) as caught:
        compile("def f(:\n", "jobs.py", "exec")
    found = describe(caught.value)
    assert found.line.startswith("SyntaxError: ")
    assert 'File "jobs.py", line 1' in found.detail


def test_a_line_that_announces_another_is_told_with_it() -> None:
    found = describe(ValueError("the config is wrong:\n    hidden_size 30 is no multiple of 4"))
    assert found.line == "ValueError: the config is wrong: hidden_size 30 is no multiple of 4"


def test_the_line_is_the_one_with_the_makers_code_where_the_message_has_one() -> None:
    error = RuntimeError(
        "npuSynchronizeDevice:x.ts:479 NPU function error, error code is 507048\n"
        "[ERROR] 2026-01-01 (PID:1, Device:0, RankID:1) ERR02005 DIST internal error\n"
        "  EI0002: [PID: 1] The wait execution of the Notify register times out."
    )
    found = describe(raised(error), documented())
    assert found.kind is FailureKind.INTERCONNECT
    assert found.line == "EI0002: [PID: 1] The wait execution of the Notify register times out."
    assert "npuSynchronizeDevice" in found.detail


def test_a_parity_that_is_not_kept_is_told_in_its_one_sentence() -> None:
    found = describe(raised(ParityError("kl_mean is 3, at most 0.02 is allowed")), documented())
    line = "kl_mean is 3, at most 0.02 is allowed"
    assert found == ExceptionReport(FailureKind.PARITY, line, "", sign="type_of_exception")


def test_what_a_job_knows_of_its_failure_counts_whatever_it_says() -> None:
    error = raised(KnownFailureError("storage", "CUDA out of memory"))
    report = describe(error, documented())
    assert report == ExceptionReport(
        FailureKind.STORAGE, "CUDA out of memory", "", certain=True, sign="known_to_the_job"
    )


@pytest.mark.parametrize("kind", ["cancelled", "nonsense"])
def test_what_a_job_can_not_know_is_judged_by_its_words(kind: str) -> None:
    error = raised(KnownFailureError(kind, "CUDA out of memory"))
    assert describe(error, documented()).kind is FailureKind.OUT_OF_MEMORY
