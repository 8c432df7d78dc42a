"""An engine server's own figures: read for what is decided by them, labelled for Prometheus."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from orchestrator.core.spec.engines import MetricNames

_SAMPLE = re.compile(r"([A-Za-z_:][\w:]*)(\{.*\})?\s+(\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


Rank: TypeAlias = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Figures:
    """How busy an engine is: requests, tokens that it has worked on ever, tokens it holds now.

    `tokens` is `None` where the engine does not tell. `suspect` is how many of its answers it
    thinks are wrong. `ranks` are requests that run and tokens of each of its cores, by the labels
    that both have.
    """

    running: float = 0.0
    waiting: float = 0.0
    tokens: float | None = None
    cache_used: float = 0.0
    cached_tokens: float = 0.0
    suspect: float = 0.0
    ranks: Mapping[Rank, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Sample:
    labels: Mapping[str, str]
    value: float

    @property
    def rank(self) -> Rank:
        """Which core of the engine it is of."""
        return frozenset(self.labels.items())


def read(text: str, names: MetricNames) -> Figures:
    """Return what the figures in `text` say, which a server answered."""
    samples: dict[str, list[_Sample]] = {}
    for name, sample in _samples(text):
        samples.setdefault(name, []).append(sample)

    def total(name: str) -> float:
        return math.fsum(sample.value for sample in samples.get(name, ()))

    counters = [name for name in names.tokens if name in samples]
    counted: dict[Rank, float] = {}
    for sample in (sample for name in counters for sample in samples[name]):
        counted[sample.rank] = counted.get(sample.rank, 0.0) + sample.value
    runs = {sample.rank: sample.value for sample in samples.get(names.running, ())}
    used = samples.get(names.cache_used, [])
    mean = math.fsum(sample.value for sample in used) / len(used) if used else 0.0
    size = math.fsum(
        _size(sample, names.cache_labels) for sample in samples.get(names.cache_size, ())
    )
    return Figures(
        running=total(names.running),
        waiting=total(names.waiting),
        tokens=math.fsum(map(total, counters)) if counters else None,
        cache_used=mean,
        cached_tokens=mean * size,
        suspect=math.fsum(map(total, names.suspect)),
        ranks={rank: (runs[rank], counted[rank]) for rank in runs.keys() & counted.keys()},
    )


def labelled(text: str, labels: Mapping[str, str]) -> str:
    """Return figures with `labels` before those of each sample."""
    extra = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
    return "".join(f"{_with(line, extra)}\n" for line in text.splitlines())


def _with(line: str, extra: str) -> str:
    match = None if line.startswith("#") else _SAMPLE.match(line)
    if match is None:
        return line
    own = (match[2] or "{}")[1:-1].strip(", ")
    rest = line[match.end(2 if match[2] else 1) :]
    return f"{match[1]}{{{extra}{',' if own else ''}{own}}}{rest}"


def _samples(text: str) -> Iterator[tuple[str, _Sample]]:
    for line in text.splitlines():
        match = None if line.startswith("#") else _SAMPLE.match(line)
        if match is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        if math.isfinite(value):
            yield match[1], _Sample(dict(_LABEL.findall(match[2] or "")), value)


def _size(sample: _Sample, labels: tuple[str, ...]) -> float:
    """Return the product of figures that stand in labels, or the value where none does."""
    if not labels:
        return sample.value
    try:
        return math.prod(float(sample.labels[name]) for name in labels)
    except (KeyError, ValueError):  # not known yet
        return 0.0
