"""Texts of failures as the field writes them: what each is taken for. `-s` prints the tables."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.failures.explain import explain
from orchestrator.core.failures.kinds import FailureKind
from tests.build import documented
from tests.core.corpus.cases import FILES, cases, confusion, excerpt, is_right

UNKNOWN_AT_MOST = 0.1


def told(file: str) -> list[tuple[FailureKind, dict[str, Any]]]:
    return [(explain(excerpt(case), documented()).kind, case) for case in cases(file)]


@pytest.mark.parametrize("file", FILES)
def test_every_text_is_taken_for_what_it_is(file: str) -> None:
    found = told(file)
    print(f"\n{file}: {len(found)} texts\n{confusion(found)}")
    wrong = [(str(kind), case) for kind, case in found if not is_right(kind, case)]
    assert not wrong


@pytest.mark.parametrize("file", FILES)
def test_nothing_is_the_users_fault_that_is_not(file: str) -> None:
    blamed = [
        case
        for kind, case in told(file)
        if kind is FailureKind.USER_CODE and not is_right(kind, case)
    ]
    assert not blamed


@pytest.mark.parametrize("file", FILES)
def test_few_texts_are_unknown(file: str) -> None:
    found = told(file)
    unknown = [case for kind, case in found if kind is FailureKind.UNKNOWN]
    assert len(unknown) <= UNKNOWN_AT_MOST * len(found)


def test_the_users_own_code_is_never_certain_by_a_text_alone() -> None:
    failures = (explain(excerpt(case), documented()) for file in FILES for case in cases(file))
    assert not [f for f in failures if f.kind is FailureKind.USER_CODE and f.certain]


# --- what quotes an error is not that error ------------------------------------------------------

QUOTED = [
    "cannot parse document 17: 'Watchdog caught collective operation timeout'",
    "'CUDA out of memory. Tried to allocate 2 GiB'",
    "bad text 'EI0002'",
    "the row says: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.",
]


@pytest.mark.parametrize("text", QUOTED)
@pytest.mark.parametrize("name", ["ValueError", "KeyError", "json.decoder.JSONDecodeError"])
def test_a_plain_exception_is_about_code_whatever_it_quotes(name: str, text: str) -> None:
    case = {"as": "exception", "type": name, "message": text, "lines": [], "expected": []}
    assert explain(excerpt(case), documented()).kind is FailureKind.USER_CODE


@pytest.mark.parametrize("text", QUOTED)
def test_what_another_exception_quotes_is_not_its_error(text: str) -> None:
    case = {"as": "exception", "type": "RuntimeError", "message": text, "lines": []}
    assert explain(excerpt(case), documented()).kind in {
        FailureKind.USER_CODE,
        FailureKind.UNKNOWN,
    }


@pytest.mark.parametrize(
    "line",
    [
        "document 17: Heartbeat Lost",
        "[WARN] caught CUDA out of memory at batch 64, retrying with 32",
        "INFO docs: EZ9999 errors are internal",
        "WARNING: port 8265: Address already in use",
        "ValueError: CUDA error: unspecified launch failure",
        '{"text": "CUDA error: an illegal memory access was encountered"}',
        "sample 3: NCCL WARN Net : Connection closed by remote peer",
        "sample: The operator 'aten::foo' is not currently implemented for the NPU device",
        "[rank0]: step 7 sample 3: The operator 'aten::foo' is not currently implemented for XPU",
        "completion: RCCL WARN Net : Connection closed by remote peer",
        "INFO:trainer:output[2] -> RCCL error: ring 3 stalled on channel 7",
        "2026-01-02 10:11:12 prompt 4 | Graph compile failed. synStatus=synStatus 26",
    ],
)
def test_a_line_that_tells_of_an_error_is_not_that_error(line: str) -> None:
    case = {"as": "line", "lines": [line, "step 7"]}
    assert explain(excerpt(case), documented()).kind is FailureKind.WORKER_LOST


@pytest.mark.parametrize(
    "line",
    [
        "The operator 'aten::foo' is not currently implemented for the NPU device",
        "RCCL error: ring 3 stalled on channel 7, peer 12 silent",
        "rccl: transport/net.cc:1137 peer 5 vanished, giving up",
        "librccl.so.1: ncclCommInitRank: xGMI link 2 to peer 5 is down",
    ],
)
def test_the_same_words_are_an_error_where_the_runtime_says_them(line: str) -> None:
    case = {"as": "line", "lines": [line]}
    assert explain(excerpt(case), documented()).kind is not FailureKind.WORKER_LOST


# --- what torch says of a gang that is well ------------------------------------------------------

HARMLESS = [
    "[W1 socket.cpp:207] [c10d] The hostname of the client socket cannot be retrieved. err=-3",
    "[I1201 00:40:23.086 socket.cpp:500] [c10d] The server socket listens on [::]:29500.",
]


@pytest.mark.parametrize("line", HARMLESS)
def test_a_line_that_torch_writes_on_hosts_without_names_shows_nothing(line: str) -> None:
    case = {"as": "line", "lines": [line]}
    assert explain(excerpt(case), documented()).kind is FailureKind.WORKER_LOST
