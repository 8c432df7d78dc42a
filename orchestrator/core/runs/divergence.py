"""Whether a loss went astray: no number any more, or far above what it was just before.

The newest values are a window; a value is a spike when it stands too many standard deviations
above the mean of the window, and several spikes in a row are a divergence. Spikes don't enter the
window, so that they don't hide those that follow. Some chips never say infinity or NaN: they hold
the largest number that there is instead of the one, and zero instead of the other, and stay there.
"""

from __future__ import annotations

from collections import deque
from math import isfinite, sqrt

from orchestrator.core.spec.policy import Watch

# The largest numbers of float16, bfloat16 and float32.
LARGEST = frozenset({65504.0, 3.3895313892515355e38, 3.4028234663852886e38})
# With fewer values in the window nobody knows how much they vary.
FEWEST = 10
# A loss that hardly varied is not astray because it varies more: the least that a deviation counts
# for, as a part of the mean, and by itself.
LEAST_PART = 0.05
LEAST = 0.01
# Zero is a loss that one can reach, but not from above this in one step.
FAR_FROM_ZERO = 0.1


class Guard:
    """Watches one metric of one attempt, from value to value."""

    def __init__(self, watch: Watch) -> None:
        """Have seen no value yet."""
        self._watch = watch
        self._window: deque[float] = deque(maxlen=max(0, watch.window))
        self._stuck = 0
        self._spikes = 0

    def divergence(self, value: float, step: int) -> str | None:
        """Return what shows that the metric went astray at `step`, in words; `None` if nothing."""
        name = self._watch.metric
        if not isfinite(value):
            return f"{name} is {value:g} at step {step}"
        if self._saturates(value):
            self._stuck += 1
            stuck = self._stuck >= self._watch.patience
            what = f"{name} is stuck at {value:g} at step {step}: the chip shows no inf or nan"
            return what if stuck else None
        self._stuck = 0
        return self._spike(value, step)

    def _saturates(self, value: float) -> bool:
        fell = value == 0.0 and self._knows and min(self._window) > FAR_FROM_ZERO
        return fell or abs(value) in LARGEST

    @property
    def _knows(self) -> bool:
        return 0 < min(FEWEST, self._watch.window) <= len(self._window)

    def _spike(self, value: float, step: int) -> str | None:
        watch, window = self._watch, self._window
        if self._knows:
            mean = sum(window) / len(window)
            spread = sqrt(sum((earlier - mean) ** 2 for earlier in window) / len(window))
            above = (value - mean) / max(spread, LEAST_PART * abs(mean), LEAST)
            self._spikes = self._spikes + 1 if above > watch.deviations else 0
            if self._spikes >= watch.patience:
                spike = (
                    f"{watch.metric} {value:.4g} at step {step} is {above:.0f} deviations above"
                )
                return f"{spike} the mean {mean:.4g} of the last {len(window)}"
        if not self._spikes:
            window.append(value)
        return None
