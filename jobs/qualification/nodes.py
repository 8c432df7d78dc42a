"""What each chip can do by itself: one worker a node, which sees all chips of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from jobs.qualification import report
from jobs.qualification.attention import check_attention
from jobs.qualification.bench import BOTH, SERVE, TRAIN, Bench
from jobs.qualification.devices import check_bandwidth, check_devices, devices_of
from jobs.qualification.fused import check_fused
from jobs.qualification.host_reference import asked_model, reference_of
from jobs.qualification.layers import works
from jobs.qualification.logits import check_logits
from jobs.qualification.maker import check_maker
from jobs.qualification.memory import check_memory
from jobs.qualification.memory_errors import watched
from jobs.qualification.operators import check_operators
from jobs.qualification.pace import soak
from jobs.qualification.products import check_products, compare
from jobs.qualification.reduced import fresh
from orchestrator.job import JobContext, Metrics

_LEAST_RATE, _LEAST_BANDWIDTH = 0.5, 0.6


def qualify_nodes(  # noqa: PLR0913 - the parameters of a job are its configuration
    ctx: JobContext,
    *,
    devices: int = 1,
    architecture: str = "llama",
    model: dict[str, object] | None = None,
    roles: list[str] | None = None,
    bf16_tflops: float | None = None,
    bandwidth_tbs: float | None = None,
    formats: list[str] | None = None,
    diagnostic: list[str] | None = None,
    diagnostic_failed: str = "",
    memory_errors: list[str] | None = None,
    memory_errors_pattern: str = "",
    soak_seconds: float = 60.0,
    quick: bool = False,
) -> Metrics:
    """Check every chip of every node.

    Args:
        ctx: The context.
        devices: Chips that a node must have.
        architecture: Model type of transformers, as the pipeline trains it.
        model: Fields of its config.
        roles: What the pool is wanted for; both where none is given.
        bf16_tflops: Rate that is published of the chip, TFLOP/s.
        bandwidth_tbs: Memory bandwidth that is published, TB/s.
        formats: Formats of weights that the chip can serve.
        diagnostic: The maker's command that tests the chips of a node.
        diagnostic_failed: Regular expression for what it prints where a test failed.
        memory_errors: The maker's command that tells how many errors of memory there were.
        memory_errors_pattern: Regular expression that reads what it prints.
        soak_seconds: How long to work on in the end, where no gang does.
        quick: Repeat less.
    """
    bench, wanted, known = Bench(ctx, quick), tuple(roles or BOTH), formats or ()
    bench.step()
    with watched(bench, memory_errors or (), memory_errors_pattern):
        check_operators(bench, fresh(architecture, model or {}, ctx.seed), wanted)
        bench.step()
        check_devices(bench, devices)
        check_maker(bench, diagnostic or (), diagnostic_failed)
        for device in devices_of(bench):
            _check_device(bench, device, known)
        check_fused(bench, devices_of(bench), known, wanted)
        bench.step()
        if SERVE in wanted:
            asked = asked_model(architecture, model or {}, ctx.seed)
            check_logits(bench, asked, reference_of(ctx), known)
        if TRAIN not in wanted:
            work = [piece for at in devices_of(bench) for piece in works(bench, at, wanted, known)]
            soak(bench, work, soak_seconds)
    _against_published(bench, bf16_tflops, bandwidth_tbs)
    return report.finish(bench)


def _check_device(bench: Bench, device: torch.device, formats: Sequence[str]) -> None:
    """Check one chip by itself; each check is a step."""
    checks: tuple[Callable[[], None], ...] = (
        lambda: check_memory(bench, device),
        lambda: check_products(bench, device, formats),
        lambda: check_attention(bench, device, formats),
        lambda: check_bandwidth(bench, device),
    )
    for check in checks:
        bench.step()
        check()


def _against_published(bench: Bench, rate: float | None, bandwidth: float | None) -> None:
    """Say where what was measured falls short of what is published."""
    for finding in list(bench.findings):
        if finding.figure is None:
            continue
        if finding.check == "product rate" and finding.subject.startswith("bfloat16"):
            compare(bench, finding.check, finding.figure, rate, "TFLOP/s", least=_LEAST_RATE)
        if finding.check == "bandwidth" and finding.subject.startswith("memory"):
            published = None if bandwidth is None else bandwidth * 1000
            compare(
                bench, finding.check, finding.figure, published, "GB/s", least=_LEAST_BANDWIDTH
            )
