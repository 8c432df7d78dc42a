"""What a job is handed: its hardware, its metrics, its checkpoints."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.control.context import hardware_of, numbers
from orchestrator.core.errors import JobError
from orchestrator.core.failure import FailureKind
from orchestrator.core.spec import Emulation, Needs, Pool
from orchestrator.messages import Points, Progress
from tests.control.conftest import CHIP, Bench

SAVES = """
    def job(ctx, *, steps):
        begin = ctx.latest_checkpoint()
        ctx.log("from " + str(begin and (begin.step, (begin.path / "w").read_text())))
        for step in range(begin.step if begin else 0, steps):
            ctx.save_checkpoint(step + 1, lambda folder: (folder / "w").write_text(f"w{step}"))
    """


@pytest.mark.parametrize(
    ("device", "emulated", "devices", "expected"),
    [
        ("cuda", False, 1, ("cuda:0", "nccl")),
        ("npu", False, 8, ("npu:0", "nccl")),
        ("cuda", False, 0, ("cpu", "gloo")),
        ("cuda", True, 1, ("cpu", "gloo")),
        ("cpu", False, 1, ("cpu", "nccl")),
    ],
)
def test_a_worker_has_the_device_and_backend_that_it_really_uses(
    *, device: str, emulated: bool, devices: int, expected: tuple[str, str]
) -> None:
    emulation = Emulation() if emulated else None
    pool = Pool(name="p", accelerator=replace(CHIP, device=device), emulation=emulation)
    hardware = hardware_of(pool, Needs(devices=devices))
    assert (hardware.device, hardware.backend) == expected
    assert hardware.emulated is emulated
    assert (hardware.vendor, hardware.memory_gb) == ("NVIDIA", 80.0)


def test_a_job_knows_what_it_is_part_of(bench: Bench) -> None:
    source = """
        def job(ctx):
            ctx.log(f"{ctx.run} {ctx.stage} {ctx.attempt} {ctx.seed} {ctx.device}")
            ctx.log(f"{ctx.rank} of {ctx.world_size} on {ctx.hardware.pool}")
        """
    assert bench.lines(source, rank=1, needs=Needs(workers=2)) == [
        "r2-1 train 1 7 cuda:0",
        "1 of 2 on nvidia",
    ]


def test_only_rank_0_is_heard_of_metrics_and_progress(bench: Bench) -> None:
    source = "def job(ctx): ctx.metrics({'loss': 1}, step=1); ctx.progress(1, 2)"
    kinds = [type(message) for message in bench.messages(source)[:-1]]
    assert kinds == [Points, Progress]
    assert len(bench.messages(source, rank=1)) == 1


def test_an_empty_log_message_is_an_empty_line(bench: Bench) -> None:
    assert bench.lines("def job(ctx): ctx.log('')") == [""]


class Tensor:
    """Something that has a value."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def __float__(self) -> float:
        if len(self.values) != 1:
            message = "a Tensor with 2 elements cannot be converted to Scalar"
            raise RuntimeError(message)
        return self.values[0]


def test_whatever_has_a_value_is_a_number() -> None:
    assert numbers({"a": Tensor(0.5), "b": True, "c": "1e3"}, "metrics") == {
        "a": 0.5,
        "b": 1.0,
        "c": 1000.0,
    }


@pytest.mark.parametrize("value", [None, "low", Tensor(1, 2)])
def test_what_has_no_value_is_named(value: object) -> None:
    with pytest.raises(JobError, match="metrics of step 1: 'loss' is no number but a "):
        numbers({"loss": value}, "metrics of step 1")


# --- checkpoints --------------------------------------------------------------------------------


def test_a_second_attempt_goes_on_from_the_last_checkpoint(bench: Bench) -> None:
    assert bench.lines(SAVES, params={"steps": 2}) == ["from None"]
    assert bench.lines(SAVES, params={"steps": 4}, attempt=2) == ["from (2, 'w1')"]
    found = bench.store.newest("checkpoints/r2-1/train")
    assert found is not None
    assert found[0] == "checkpoints/r2-1/train/step-0000000004"
    assert bench.store.verify(found[1].uri).meta["step"] == "4"


def test_a_torn_checkpoint_is_passed_over_and_made_again(bench: Bench) -> None:
    bench.lines(SAVES, params={"steps": 2})
    found = bench.store.newest("checkpoints/r2-1/train")
    assert found is not None
    (bench.store.fetch(found[1]) / "w").write_text("torn")
    assert bench.lines(SAVES, params={"steps": 2}, attempt=2) == ["from (1, 'w0')"]
    assert bench.store.newest("checkpoints/r2-1/train") == found


def test_stages_and_runs_do_not_see_the_checkpoints_of_others(bench: Bench) -> None:
    bench.lines(SAVES, params={"steps": 1})
    assert bench.lines(SAVES, params={"steps": 0}, stage="tune") == ["from None"]
    assert bench.lines(SAVES, params={"steps": 0}, run="r2-10") == ["from None"]


@pytest.mark.parametrize(("rank", "step"), [(1, 1), (0, -1)])
def test_a_checkpoint_that_can_not_be_is_refused(bench: Bench, rank: int, step: int) -> None:
    source = f"def job(ctx): ctx.save_checkpoint({step}, print)"
    failure = bench.failure(source, rank=rank)
    expected = f"save_checkpoint({step}) by rank {rank}: only rank 0 saves, step >= 0"
    assert failure.evidence == expected
    assert failure.kind is FailureKind.USER_CODE


def test_a_checkpoint_that_breaks_while_it_is_written_leaves_nothing(bench: Bench) -> None:
    failure = bench.failure("""
        def job(ctx):
            def write(folder):
                (folder / "w").write_text("half")
                raise OSError("no space")
            ctx.save_checkpoint(5, write)
        """)
    assert (failure.evidence, failure.step) == ("OSError: no space", 5)
    assert bench.scratch() == []
    assert bench.store.newest("checkpoints/r2-1/train") is None
