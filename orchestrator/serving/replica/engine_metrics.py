"""The figures of a replica's engine, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.engine import Engine, Predictor

CONTENT_TYPE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_GAUGES = {
    "running": ("requests_running", "Answers that are being made."),
    "waiting": ("requests_waiting", "Answers that wait for a slot."),
    "slots": ("slots", "Answers that can be made at once."),
    "held": ("held_tokens", "Tokens in the answers that run or wait, and in their prompts."),
    "cache_used": ("cache_used_ratio", "Share of the key-value cache that is taken."),
}


class EngineMetrics(Collector):
    """Reads an engine when it is asked.

    Attributes:
        prompt_tokens: Of the prompts of all requests that were answered.
    """

    def __init__(self, engine: Engine | Predictor, model: str) -> None:
        self.prompt_tokens = 0
        self._engine = engine
        self._model = model
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Return nothing: the names don't clash."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the figures that this engine has."""
        figures = dict(getattr(self._engine, "statistics", dict)())
        figures = {name: float(value) for name, value in figures.items()}
        yield self._gauge(
            "healthy", "1 while the engine can serve.", float(not health(self._engine))
        )
        types = getattr(self._engine, "types", None)
        if types:
            yield self._weights(types)
        for name, (metric, what) in _GAUGES.items():
            if name in figures:
                yield self._gauge(metric, what, figures[name])
        if "tokens" in figures:
            yield self._counter("generated_tokens", "Tokens made.", figures["tokens"])
            yield self._counter("prompt_tokens", "Tokens read.", float(self.prompt_tokens))

    def _gauge(self, name: str, what: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"orchestrator_engine_{name}", what, labels=("model",))
        family.add_metric((self._model,), value)
        return family

    def _weights(self, types: Mapping[str, str]) -> Metric:
        """Return in which type weights are stored, and are computed with, as a plain 1."""
        family = GaugeMetricFamily(
            "orchestrator_engine_weights_info",
            "1: how the weights are stored, and in which type they are computed with.",
            labels=("model", *types),
        )
        family.add_metric((self._model, *types.values()), 1.0)
        return family

    def _counter(self, name: str, what: str, value: float) -> Metric:
        family = CounterMetricFamily(f"orchestrator_engine_{name}", what, labels=("model",))
        family.add_metric((self._model,), value)
        return family


def health(engine: Engine | Predictor) -> str:
    """Return why an engine can't serve; nothing while it can, or where it never says."""
    return str(getattr(engine, "health", str)())
