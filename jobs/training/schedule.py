"""The learning rate: a linear warm-up, then a cosine down to a floor. A function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Peak rate, steps of warm-up, steps in all, and the floor as a share of the peak."""

    peak: float
    warmup: int
    steps: int
    floor: float

    def rate(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        left = max(1, self.steps - self.warmup)
        share = min(1.0, (step - self.warmup) / left)
        cosine = (1 + math.cos(math.pi * share)) / 2
        return self.peak * (self.floor + (1 - self.floor) * cosine)
