"""A text is taken for the same by the worker that raises it, and by who explains it later."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.core.failures.explain import explain
from orchestrator.core.failures.failure_report import FailureReport
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.failures.log_excerpt import parse
from orchestrator.messages import Failed, LogLine
from tests.build import documented
from tests.core.corpus.cases import FILES, cases, excerpt
from tests.worker.conftest import Bench

RAISES = """
    import builtins, json

    def job(ctx, case):
        case = json.loads(case)
        for line in case["lines"]:
            print(line)
        found = getattr(builtins, case["type"], None)
        kind = found or type(case["type"], (RuntimeError,), {})
        if kind is UnicodeDecodeError:
            b"\\xff".decode()
        raise kind(case["message"])
"""
EXCEPTIONS = [one for one in cases("shared") if one["as"] == "exception"]


def through_the_worker(bench: Bench, case: dict[str, Any]) -> Failure:
    """Return what the pool of a worker that prints and raises this makes of it."""
    failure_report = FailureReport(documented())
    params = {"case": json.dumps(case)}
    for message in bench.messages(RAISES, params=params, signatures=documented()):
        if isinstance(message, LogLine):
            failure_report.hear(message.rank, message.text)
        if isinstance(message, Failed):
            failure_report.report(0, message.failure, at=message.at, now=0.0)
    found = failure_report.verdict(0.0, all_known=True)
    assert found is not None
    return found


@pytest.mark.parametrize("case", EXCEPTIONS, ids=lambda case: case["message"][:40])
def test_a_worker_and_who_explains_it_tell_the_same(bench: Bench, case: dict[str, Any]) -> None:
    worker, explained = through_the_worker(bench, case), explain(excerpt(case), documented())
    assert (worker.kind, worker.sign, worker.certain) == (
        explained.kind,
        explained.sign,
        explained.certain,
    )


@pytest.mark.parametrize("file", FILES)
def test_a_traceback_is_read_as_the_exception_that_it_ends_with(file: str) -> None:
    differing = []
    for case in cases(file):
        if case["as"] == "line":
            continue
        frame = '  File "/code/train.py", line 7, in job\n    step()'
        said = f"{case['type']}: {case['message']}" if case["message"] else case["type"]
        text = "\n".join(
            [*case["lines"], "[rank0]: Traceback (most recent call last):", frame, said]
        )
        found, expected = (explain(one, documented()) for one in (parse(text), excerpt(case)))
        if found.kind is not expected.kind:
            differing.append((case, str(found.kind), str(expected.kind)))
    assert not differing


class ParseError(ValueError):
    """As a job defines one."""


@pytest.mark.parametrize(
    "error",
    [
        "ParseError(\"cannot parse 'CUDA out of memory'\")",
        "json.JSONDecodeError('CUDA error: unspecified launch failure', 'x', 0)",
        "KeyError('Heartbeat Lost')",
    ],
)
def test_what_a_subclass_of_a_plain_exception_says_is_about_code(bench: Bench, error: str) -> None:
    source = f"""
    import json

    class ParseError(ValueError):
        pass

    def job(ctx):
        print("[ERROR] document 17: Heartbeat Lost")
        raise {error}
    """
    assert bench.failure(source, signatures=documented()).kind is FailureKind.USER_CODE


def test_what_an_exception_caused_counts_and_what_a_bug_handled_does_not(bench: Bench) -> None:
    caused = """
    def job(ctx):
        try:
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        except RuntimeError as error:
            raise ValueError("the step failed") from error
    """
    assert bench.failure(caused, signatures=documented()).kind is FailureKind.DEVICE_LOST


def test_a_bug_in_the_handling_of_an_error_is_the_bug(bench: Bench) -> None:
    handled = """
    def job(ctx):
        try:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        except RuntimeError:
            {}["smaller"]
    """
    assert bench.failure(handled, signatures=documented()).kind is FailureKind.USER_CODE


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("OSError(errno.ECONNRESET, 'reset')", FailureKind.INTERCONNECT),
        ("OSError(errno.EADDRINUSE, 'in use')", FailureKind.INTERCONNECT),
        ("BrokenPipeError(errno.EPIPE, 'pipe')", FailureKind.INTERCONNECT),
        ("OSError(errno.EIO, 'eio', '/data/x')", FailureKind.STORAGE),
        ("OSError(errno.EROFS, 'erofs', '/data/x')", FailureKind.STORAGE),
        ("OSError(errno.ENOMEM, 'enomem')", FailureKind.HOST_MEMORY),
        ("OSError(errno.EMFILE, 'emfile')", FailureKind.SOFTWARE),
        ("FileNotFoundError(errno.ENOENT, 'no', 'x.txt')", FailureKind.USER_CODE),
        ("PermissionError(errno.EACCES, 'no', 'x.txt')", FailureKind.USER_CODE),
        ("PermissionError(errno.EACCES, 'no', '/dev/davinci0')", FailureKind.SET_UP),
        ("TimeoutError()", FailureKind.INTERCONNECT),
        ("EOFError()", FailureKind.UNKNOWN),
    ],
)
def test_an_error_of_the_system_is_told_by_its_number(
    bench: Bench, error: str, kind: FailureKind
) -> None:
    source = f"""
    import errno

    def job(ctx):
        raise {error}
    """
    assert bench.failure(source, signatures=documented()).kind is kind
