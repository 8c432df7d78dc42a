"""One worker of an attempt: whatever a job does becomes messages and one outcome."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.torch_process_group import open_process_group
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import LogLine, Points, Progress, Succeeded
from orchestrator.worker.attempt import StreamPace
from tests.worker.conftest import CHIP, Bench

NOTHING = "def job(ctx): pass"
WRITES = "def job(ctx): (ctx.output / 'model').write_text('weights')"
Until = Callable[[Callable[[], bool]], None]


def test_what_a_job_says_leaves_in_order_and_the_outcome_last(bench: Bench) -> None:
    told = bench.messages(
        """
        def job(ctx, *, steps=1):
            for step in range(steps):
                print("step", step)
                ctx.metrics({"loss": 2 - step}, step=step)
                ctx.progress(step + 1, steps)
            ctx.log("done\\nhere")
            return {"loss": 1}
        """,
        params={"steps": 2},
    )
    assert told == [
        LogLine(0, "step 0"),
        Points(0, {"loss": 2.0}, 1000.0),
        LogLine(0, "step 1"),
        Points(1, {"loss": 1.0}, 1000.0),
        LogLine(0, "done"),
        LogLine(0, "here"),
        Progress(2, 2),
        Succeeded(None, {"loss": 1.0}),
    ]


def test_messages_leave_while_the_job_runs(bench: Bench) -> None:
    bench.write("""
        import threading
        go = threading.Event()
        def job(ctx):
            ctx.log("first")
            go.wait(10)
        """)
    batches = bench.stream(bench.request())
    assert next(batches) == [LogLine(0, "first")]
    sys.modules[f"{bench.package}.jobs"].go.set()
    assert list(batches) == [[Succeeded(None)]]


def test_a_silent_job_sends_no_empty_batches(bench: Bench) -> None:
    bench.pace = StreamPace(batch=0.0)
    bench.write(NOTHING)
    assert list(bench.stream(bench.request())) == [[Succeeded(None)]]


# --- what a job makes ---------------------------------------------------------------------------


def test_what_a_job_writes_becomes_the_artifact_of_its_attempt(bench: Bench) -> None:
    ref = bench.result(WRITES, attempt=2).artifact
    assert ref is not None
    assert ref.uri.endswith("/r2-1/train/2")
    assert (bench.store.fetch(ref) / "model").read_text() == "weights"
    assert bench.store.verify(ref.uri).meta == {
        "run": "r2-1",
        "stage": "train",
        "attempt": "2",
        "epoch": "3",
        "job": f"{bench.package}.jobs.job",
        "pool": "nvidia",
    }


@pytest.mark.parametrize(("source", "rank"), [(NOTHING, 0), (WRITES, 1)])
def test_a_worker_that_may_not_or_does_not_write_makes_no_artifact(
    bench: Bench, source: str, rank: int
) -> None:
    assert bench.result(source, rank=rank) == Succeeded(None)
    assert bench.scratch() == []


def test_a_job_reads_its_inputs_from_verified_folders(bench: Bench) -> None:
    ref = bench.artifact("r2-1/data/1", {"text": b"hello"})
    source = "def job(ctx): ctx.log((ctx.inputs['data'] / 'text').read_text())"
    assert bench.lines(source, inputs={"data": ref}) == ["hello"]


def test_a_damaged_input_is_a_failure_of_data_and_the_job_is_not_called(bench: Bench) -> None:
    ref = bench.artifact("r2-1/data/1", {"text": b"hello"})
    (bench.store.fetch(ref) / "text").write_bytes(b"hallo")
    bench.process_group = open_process_group
    failure = bench.failure("def job(ctx): raise AssertionError", inputs={"data": ref})
    assert failure.kind is FailureKind.DATA
    assert failure.evidence.startswith("artifact 'r2-1/data/1': file 'text' has ")
    assert failure.detail == ""


@pytest.mark.parametrize(
    ("returned", "line"),
    [
        ("3", "are a int; give a mapping of names to numbers"),
        ("{'loss': 'low'}", "'loss' is no number but a str"),
    ],
)
def test_results_that_are_no_numbers_are_refused(bench: Bench, returned: str, line: str) -> None:
    failure = bench.failure(f"def job(ctx): return {returned}")
    assert failure.kind is FailureKind.USER_CODE
    assert failure.evidence.endswith(line)
    assert failure.evidence.startswith(f"results of '{bench.package}.jobs.job'")


# --- how a job ends -----------------------------------------------------------------------------


def test_an_exception_becomes_a_failure_with_rank_step_and_the_users_traceback(
    bench: Bench,
) -> None:
    failure = bench.failure(
        """
        def job(ctx):
            ctx.metrics({"loss": 1}, step=40)
            broken()

        def broken():
            raise ValueError("bad\\nbatch")
        """,
        rank=1,
    )
    assert (failure.kind, failure.evidence) == (FailureKind.USER_CODE, "ValueError: bad")
    assert (failure.pool, failure.rank, failure.step) == ("nvidia", 1, 40)
    first, second, *_, last = failure.detail.splitlines()
    assert first == "Traceback (most recent call last):"
    assert second.endswith('jobs.py", line 4, in job')
    assert last == "batch"
    assert bench.scratch() == []


@pytest.mark.parametrize(
    "line", ["SystemExit: 0", "KeyboardInterrupt", "GeneratorExit", "StopIteration: 1"]
)
def test_no_exception_gets_past_the_attempt(bench: Bench, line: str) -> None:
    name, _, value = line.partition(": ")
    assert bench.failure(f"def job(ctx): raise {name}({value})").evidence == line


def test_a_full_store_is_a_failure_of_data(bench: Bench) -> None:
    bench.artifact("r2-1/train/1", {"other": b""})
    failure = bench.failure(WRITES)
    assert failure.kind is FailureKind.DATA
    assert failure.evidence.startswith("artifact 'r2-1/train/1' exists with other contents")
    assert bench.scratch() == []


def test_parameters_that_the_job_does_not_take_are_named(bench: Bench) -> None:
    failure = bench.failure(NOTHING, params={"lr": 1})
    assert failure.evidence.endswith(
        "can't be called: got an unexpected keyword argument 'lr'; check params of its stage"
    )
    assert failure.kind is FailureKind.USER_CODE


# --- gang and device ----------------------------------------------------------------------------


def test_the_gang_is_open_while_the_job_runs(bench: Bench) -> None:
    bench.write(NOTHING)
    request = bench.request(needs=Needs(workers=4, cpus=2.5))
    list(bench.stream(request, rank=3, rendezvous="host:1"))
    assert bench.process_group.calls == [("host:1", 3, 4, "cpu:gloo,cuda:nccl", 2), "closed"]


def test_a_worker_is_told_its_number_on_its_node(bench: Bench) -> None:
    bench.write("def job(ctx): ctx.log(str((ctx.rank, ctx.local_rank)))")
    request = bench.request(needs=Needs(workers=4), node_ranks=(0, 0, 1, 1))
    said = [m for batch in bench.stream(request, rank=3, rendezvous="host:1") for m in batch]
    assert LogLine(3, "(3, 1)") in said


def test_a_gang_that_does_not_come_together_is_a_failure(bench: Bench) -> None:
    bench.process_group.error = ConnectionError("no peers")
    assert bench.failure(WRITES).evidence == "ConnectionError: no peers"
    assert bench.scratch() == []


def test_the_package_of_the_chip_is_imported_before_the_job(bench: Bench) -> None:
    bench.folder.mkdir()
    (bench.folder / f"{bench.package}_npu.py").write_text("")
    sys.path.insert(0, str(bench.folder))
    chip = replace(CHIP, device="npu", torch_package=f"{bench.package}_npu")
    source = "import sys\ndef job(ctx): ctx.log(str([m for m in sys.modules if '_npu' in m]))"
    lines = bench.lines(source, pool=Pool(name="ascend", accelerator=chip))
    assert lines == [f"['{bench.package}_npu']"]
    del sys.modules[f"{bench.package}_npu"]


def test_a_pool_without_the_package_of_its_chip_is_not_fit(bench: Bench) -> None:
    chip = replace(CHIP, device="npu", torch_package="no_such_npu")
    failure = bench.failure(NOTHING, pool=Pool(name="ascend", accelerator=chip))
    assert failure.kind is FailureKind.SET_UP
    assert failure.evidence.startswith("pool 'ascend': package 'no_such_npu' can't be imported")


def test_an_emulated_chip_and_work_on_the_host_need_no_package(bench: Bench) -> None:
    chip = replace(CHIP, device="npu", torch_package="no_such_npu")
    emulated = Pool(name="ascend", accelerator=chip, emulation=Emulation())
    bench.result(NOTHING, pool=emulated)
    bench.result(NOTHING, pool=Pool(name="ascend", accelerator=chip), needs=Needs(devices=0))


# --- giving up ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        "ctx.progress(0, 1)",
        "ctx.metrics({}, step=1)",
        "ctx.log('x')",
        "ctx.latest_checkpoint()",
        "ctx.save_checkpoint(next(steps), print)",
    ],
)
def test_closing_the_stream_ends_the_job_at_its_next_call(bench: Bench, call: str) -> None:
    bench.write(f"""
        from itertools import count
        from pathlib import Path
        def job(ctx):
            steps = count(1)
            (ctx.output / "part").write_text("x")
            ctx.log("begun")
            try:
                while True:
                    {call}
            except Exception:
                ctx.log("swallowed")
        """)
    batches = bench.stream(bench.request())
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name == "r2-1/train/1"]
    assert bench.scratch() == []
    assert bench.store.names("r2-1/train") == []


def test_a_job_that_was_given_up_and_returns_late_stores_nothing(
    bench: Bench, until: Until
) -> None:
    bench.pace = StreamPace(grace=0.0)
    bench.write("""
        import threading
        go = threading.Event()
        def job(ctx):
            ctx.log("begun")
            go.wait(10)
            ctx.output.mkdir(exist_ok=True)
            (ctx.output / "model").write_text("late")
        """)
    batches = bench.stream(bench.request())
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    sys.modules[f"{bench.package}.jobs"].go.set()
    until(lambda: not [t for t in threading.enumerate() if t.name == "r2-1/train/1"])
    assert bench.store.names("r2-1/train") == []
    assert bench.scratch() == []


def test_closing_a_stream_that_nobody_began_runs_nothing(bench: Bench) -> None:
    bench.write(NOTHING)
    bench.stream(bench.request()).close()  # type: ignore[attr-defined]
    assert bench.process_group.calls == []


def test_the_store_of_a_worker_may_be_unusable(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("in the way")
    failure = bench.failure(NOTHING)
    assert failure.kind is FailureKind.STORAGE
    assert failure.evidence.startswith("artifact 'r2-1/train/1': ")
