"""What a job is handed: its hardware and its metrics."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace

import pytest

from orchestrator.core.artifact import FileEntry
from orchestrator.core.errors import JobError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Points, Progress, Report
from orchestrator.node.process_hardware import backends, hardware_of
from orchestrator.worker.context import numbers
from tests.worker.conftest import CHIP, Bench


@pytest.mark.parametrize(
    ("device", "emulation", "devices", "expected"),
    [
        ("cuda", None, 1, ("cuda:0", "nccl", "cpu:gloo,cuda:nccl")),
        ("npu", None, 8, ("npu:0", "nccl", "cpu:gloo,npu:nccl")),
        ("cuda", None, 0, ("cpu", "gloo", "gloo")),
        ("cuda", Emulation(), 1, ("cpu", "gloo", "gloo")),
        ("cuda", Emulation(backend="own"), 1, ("cpu", "emulated_nccl", "emulated_nccl")),
        ("cpu", None, 1, ("cpu", "nccl", "nccl")),
    ],
)
def test_a_worker_has_the_device_and_backend_that_it_really_uses(
    device: str, emulation: Emulation | None, devices: int, expected: tuple[str, ...]
) -> None:
    chip = replace(CHIP, device=device, bf16_tflops=989.0, fp8_tflops=1979.0)
    pool = Pool(name="p", accelerator=chip, emulation=emulation)
    hardware = hardware_of(pool, Needs(devices=devices))
    assert (hardware.device, hardware.backend, backends(hardware)) == expected
    assert hardware.emulated is (emulation is not None)
    assert (hardware.vendor, hardware.memory_gb) == ("NVIDIA", 80.0)
    rates = {"bfloat16": 989.0, "float8_e4m3fn": 1979.0}
    assert hardware.tflops == ({} if hardware.device == "cpu" else rates)


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


@pytest.mark.parametrize(
    ("said", "step"),
    [
        ("pass", None),
        ("ctx.progress(4, 60)", 4),
        ("ctx.metrics({}, step=5); ctx.progress(7, 9)", 5),
    ],
)
def test_a_failure_has_the_step_that_the_job_named_or_how_far_it_was(
    bench: Bench, said: str, step: int | None
) -> None:
    failure = bench.failure(f"def job(ctx):\n    {said}\n    raise LookupError('gone')\n")
    assert failure.step == step


def test_metrics_are_told_as_they_were_when_told(bench: Bench) -> None:
    source = """
        def job(ctx):
            values = {"loss": 2.0}
            ctx.metrics(values, step=1)
            values["loss"] = 1.0
            ctx.metrics(values, step=2)
            ctx.metrics({1: 0.5}, step=3)
            ctx.metrics({}, step=4)
        """
    told = [(m.step, m.values) for m in bench.messages(source) if isinstance(m, Points)]
    assert told == [(1, {"loss": 2.0}), (2, {"loss": 1.0}), (3, {"1": 0.5}), (4, {})]
    assert pickle.loads(pickle.dumps(Points(1, {"a": 2.0}, 3.0))) == Points(1, {"a": 2.0}, 3.0)  # noqa: S301 - our own


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


def test_a_loss_that_went_astray_ends_the_job_with_the_line_that_shows_it(bench: Bench) -> None:
    source = """
        def job(ctx):
            for step in range(1, 200):
                ctx.metrics({"validation/loss": float("nan"), "train/loss": 1.0}, step=step)
                if step == 120:
                    ctx.metrics({"train/loss": float("nan")}, step=step)
        """
    failure = bench.failure(source)
    assert failure.kind is FailureKind.NUMERICAL_DIVERGENCE
    assert failure.evidence == "train/loss is nan at step 120"
    assert failure.step == 120


def test_a_report_leaves_with_what_the_job_says_by_rank_0_alone(bench: Bench) -> None:
    source = "def job(ctx):\n    ctx.report('parity.md', 'Passed.')\n"
    assert Report("parity.md", "Passed.") in bench.messages(source)
    assert Report("parity.md", "Passed.") not in bench.messages(source, rank=1)


@pytest.mark.parametrize("name", ["../up.md", "", ".hidden", "a/b", "a\nb"])
def test_a_report_is_a_file_of_its_own_folder(bench: Bench, name: str) -> None:
    failure = bench.failure(f"def job(ctx):\n    ctx.report({name!r}, 'x')\n")
    assert failure.evidence.startswith(f"{name!r} is no name of a report")


def test_a_hash_that_a_job_has_made_stands_in_the_manifest(bench: Bench) -> None:
    sha256 = "5e" * 32
    ref = bench.result(
        f"""
        def job(ctx):
            (ctx.output / "model").write_text("weights")
            ctx.hashed("model", {sha256!r})
            (ctx.output / "changed").write_text("weights")
            ctx.hashed("changed", {sha256!r})
            (ctx.output / "changed").write_text("others")
        """
    ).artifact
    assert ref is not None
    found = bench.store.manifest("r2-1/train/1").files
    assert found["model"] == FileEntry(7, sha256)
    assert found["changed"].sha256 == hashlib.sha256(b"others").hexdigest()


@pytest.mark.parametrize(
    ("path", "sha256", "told"),
    [
        ("model", "5e" * 32, "'model' is no file of the output: No such file or directory"),
        ("model", "5E" * 32, "is no SHA-256 of 'model'; give its 64 hexadecimal digits"),
        ("model", "5e", "'5e' is no SHA-256 of 'model'"),
    ],
)
def test_a_hash_of_nothing_or_that_is_none_ends_the_job(
    bench: Bench, path: str, sha256: str, told: str
) -> None:
    failure = bench.failure(f"def job(ctx): ctx.hashed({path!r}, {sha256!r})")
    assert told in failure.evidence
