"""The load of this machine: only what is measured, under names that say whose it is."""

from __future__ import annotations

import os
import threading

from orchestrator.adapters.mlflow_tracker.experiment import MetricPoint
from orchestrator.adapters.mlflow_tracker.load import Sampler


class Ticks:
    """A clock that counts how often it was read."""

    def __init__(self) -> None:
        self.read = threading.Semaphore(0)

    def now(self) -> float:
        self.read.release()
        return 1000.0

    def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def _sampled(pools: dict[str, int]) -> dict[str, float]:
    clock = Ticks()
    sampler = Sampler(clock, 0.01, pools)
    for _ in range(3):
        assert clock.read.acquire(timeout=10)
    sampler.stop()
    return {point.key: point.value for point in sampler.take()}


def test_the_host_is_measured_and_no_pool_is_invented() -> None:
    assert set(_sampled({})) == {"system/host/cpu_percent", "system/host/memory_gb"}


def test_a_pool_on_this_machine_is_measured_by_its_processes() -> None:
    seen = _sampled({"nvidia": os.getpid()})
    assert seen["system/nvidia/host_memory_gb"] > 0.001
    assert "system/nvidia/host_cpu_percent" in seen


def test_a_pool_whose_process_is_gone_uses_nothing() -> None:
    assert _sampled({"nvidia": 2**22 + 1})["system/nvidia/host_memory_gb"] == 0.0


def test_points_that_could_not_be_written_are_kept_in_order() -> None:
    sampler = Sampler(Ticks(), 0, {})
    points = [MetricPoint("k", float(i), 0, i) for i in range(3)]
    sampler.put_back(points)
    assert sampler.take() == points
    assert sampler.take() == []
