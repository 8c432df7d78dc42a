"""Steps, metrics and names are made plain, or refused as the job's error, where they enter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orchestrator.core.errors import JobError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.messages import Points, Progress, Saved
from orchestrator.worker.reported import LONGEST_NAME, MOST_RESULTS, numbers, results, whole
from tests.worker.conftest import Bench


class Index:
    def __index__(self) -> int:
        return 5


class Unshowable:
    def __repr__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (-4, -4),
        (2**63 - 1, 2**63 - 1),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (torch.tensor(3), 3),
        (Index(), 5),
    ],
)
def test_what_is_an_integer_becomes_a_plain_one(value: object, expected: int) -> None:
    found = whole(value, "step")
    assert (found, type(found)) == (expected, int)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (1.5, "step is 1.5, a float; give an integer"),
        (True, "step is True, a bool; give an integer"),
        (np.True_, "step is np.True_, a bool; give an integer"),
        (None, "step is None, a NoneType; give an integer"),
        ("7", "step is '7', a str; give an integer"),
        ("\udcff", r"step is '\udcff', a str; give an integer"),
        (np.float32(2), "step is np.float32(2.0), a float32; give an integer"),
        (torch.tensor(1.5), "step is tensor(1.5000), a Tensor; give an integer"),
        (torch.tensor([1, 2]), "step is tensor([1, 2]), a Tensor; give an integer"),
        (np.array([1, 2]), "step is array([1, 2]), a ndarray; give an integer"),
        (2**70, "step is 1180591620717411303424; give one of 64 bits"),
        (2**63, "step is 9223372036854775808; give one of 64 bits"),
        (-(2**63) - 1, "step is -9223372036854775809; give one of 64 bits"),
        pytest.param(10**5000, "step is an integer of 16610 bits; give", id="digits"),
        (Unshowable(), "step is what can't be shown, of Unshowable, a Unshowable"),
        ("x" * 1000, f"step is '{'x' * 99}... (1002 characters), a str"),
    ],
)
def test_what_is_none_is_refused_by_one_line_with_its_value(value: object, told: str) -> None:
    with pytest.raises(JobError) as raised:
        whole(value, "step")
    assert str(raised.value).startswith(told)
    assert "\n" not in str(raised.value)
    assert str(raised.value).encode()


CALLS = {
    "metrics": "ctx.metrics({'loss': 1.0}, step={})",
    "save_checkpoint": "ctx.save_checkpoint({}, print)",
    "saved_checkpoint": "ctx.saved_checkpoint({})",
    "progress: done": "ctx.progress({}, 10)",
    "progress: total": "ctx.progress(1, {})",
}


@pytest.mark.parametrize("value", ["1.5", "None", "2**70", "'x'", "True"])
@pytest.mark.parametrize("call", CALLS)
def test_every_call_with_a_step_refuses_what_is_none(bench: Bench, call: str, value: str) -> None:
    source = CALLS[call].replace("{}", value)
    failure = bench.failure(f"def job(ctx):\n    {source}\n")
    assert failure.kind is FailureKind.USER_CODE
    assert failure.evidence.startswith(call)


def test_integers_of_numpy_leave_as_plain_ones(bench: Bench) -> None:
    said = bench.messages("""
        import numpy as np
        def job(ctx):
            for step in np.arange(1, 3):
                ctx.metrics({"loss": np.float32(0.5)}, step=step)
                ctx.progress(step, np.int32(2))
                ctx.save_checkpoint(step, lambda folder: (folder / "w").write_text("x"))
        """)
    steps = [m.step for m in said if isinstance(m, Points | Saved)]
    assert set(steps) == {1, 2}
    assert {type(step) for step in steps} == {int}
    ends = [(type(m.done), type(m.total)) for m in said if isinstance(m, Progress)]
    assert set(ends) == {(int, int)}


def test_values_of_any_kind_of_number_are_taken() -> None:
    found = numbers({"a": np.float16(0.5), "b": torch.tensor(2), 7: np.int8(1)}, "metrics")
    assert found == {"a": 0.5, "b": 2.0, "7": 1.0}
    assert {type(value) for value in found.values()} == {float}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"a": 10**400}, "m: 'a' is an integer of 1329 bits, too large for a number"),
        ({"a": None}, "m: 'a' is no number but a NoneType"),
        ({"": 1.0}, f"m: '' is no name of a metric; give 1 to {LONGEST_NAME} characters"),
        ({"x" * 251: 1.0}, "m: 'xxx"),
        ({None: 1.0}, "m: None is no name of a metric; give a text"),
        ({("a", 1): 1.0}, "m: ('a', 1) is no name of a metric; give a text"),
        ([1.0], "m are a list; give a mapping of names to numbers"),
    ],
)
def test_what_is_no_metric_is_refused(values: object, told: str) -> None:
    with pytest.raises(JobError) as raised:
        numbers(values, "m")
    assert str(raised.value).startswith(told)


def test_a_name_that_no_database_takes_is_made_valid(bench: Bench) -> None:
    source = r"""
        def job(ctx):
            for _ in range(2):
                ctx.metrics({"a\ud83d": 1.0, "b\0": 2.0}, step=1)
            return {"a\ud83d": 1.0}
        """
    *said, outcome = bench.messages(source)
    assert [dict(m.values) for m in said if isinstance(m, Points)] == [
        {r"a\ud83d": 1.0, r"b\x00": 2.0}
    ] * 2
    assert getattr(outcome, "metrics", None) == {r"a\ud83d": 1.0}


def test_a_name_that_is_long_is_refused_at_each_step(bench: Bench) -> None:
    failure = bench.failure("def job(ctx): ctx.metrics({'x' * 300: 1.0}, step=1)")
    assert failure.kind is FailureKind.USER_CODE
    assert failure.evidence.startswith("metrics of step 1: 'xxx")


def test_more_results_than_anybody_reads_are_refused() -> None:
    most = {str(n): 1.0 for n in range(MOST_RESULTS)}
    assert results(most, "j") == most
    assert results(None, "j") == {}
    with pytest.raises(JobError, match="results of 'j' are 1001 metrics; return 1000 at most"):
        results({**most, "more": 1.0}, "j")
