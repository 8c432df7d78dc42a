"""What each chip can do by itself: one worker a node, which sees all chips of it."""

from __future__ import annotations

from collections.abc import Callable

from jobs.qualification import report
from jobs.qualification.bench import BOTH, SERVE, Bench
from jobs.qualification.chips import check_bandwidth, check_devices, devices_of
from jobs.qualification.maker import check_maker
from jobs.qualification.memory import check_memory
from jobs.qualification.operators import check_operators
from jobs.qualification.products import check_products, compare
from jobs.qualification.training import check_logits
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
        quick: Repeat less.
    """
    bench, wanted = Bench(ctx, quick), tuple(roles or BOTH)
    bench.step()
    check_operators(bench, architecture, model or {}, wanted)
    bench.step()
    check_devices(bench, devices)
    check_maker(bench, diagnostic or (), diagnostic_failed)
    for device in devices_of(bench):
        checks: tuple[Callable[[], None], ...] = (
            lambda device=device: check_memory(bench, device),  # type: ignore[misc] # bound now
            lambda device=device: check_products(bench, device, formats or ()),  # type: ignore[misc] # as above
            lambda device=device: check_bandwidth(bench, device),  # type: ignore[misc] # as above
        )
        for check in checks:
            bench.step()
            check()
    bench.step()
    if SERVE in wanted:
        check_logits(bench, architecture, model or {})
    _against_published(bench, bf16_tflops, bandwidth_tbs)
    return report.finish(bench)


def _against_published(bench: Bench, rate: float | None, bandwidth: float | None) -> None:
    """Say where what was measured falls short of what is published."""
    for one in list(bench.found):
        if one.figure is None:
            continue
        if one.check == "product rate" and one.subject.startswith("bfloat16"):
            compare(bench, one.check, one.figure, rate, "TFLOP/s", least=_LEAST_RATE)
        if one.check == "bandwidth" and one.subject.startswith("memory"):
            published = None if bandwidth is None else bandwidth * 1000
            compare(bench, one.check, one.figure, published, "GB/s", least=_LEAST_BANDWIDTH)
