"""The learning rate, a function of the step: a linear warm-up, then as the schedule says.

`cosine` falls from the peak to the floor along half a cosine, `linear` in a line; `wsd`
(warm-up-stable-decay) stays at the peak, and falls in a line in its last part alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.training.tagged_config import fields_of, number

_FALLING = ("warmup", "floor")
KINDS: Mapping[str, tuple[str, ...]] = {
    "cosine": _FALLING,
    "linear": _FALLING,
    "wsd": (*_FALLING, "decay"),
}
_OF_THE_JOB = {"warmup": "warmup", "floor": "learning_rate_floor"}  # its parameters
_DECAY = 0.1  # share of the steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How the learning rate goes over the steps.

    Attributes:
        peak: The greatest rate.
        warmup: Steps until it.
        steps: Steps in all.
        floor: Share of the peak that the rate ends at.
        kind: How it falls.
        decay: Share of the steps in which `wsd` falls, the last ones.
    """

    peak: float
    warmup: int
    steps: int
    floor: float
    kind: str = "cosine"
    decay: float = _DECAY

    def rate(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        begin = self.warmup
        if self.kind == "wsd":
            begin = max(begin, self.steps - math.ceil(self.decay * self.steps))
        share = min(1.0, max(0, step - begin) / max(1, self.steps - begin))
        left = (1 + math.cos(math.pi * share)) / 2 if self.kind == "cosine" else 1 - share
        return self.peak * (self.floor + (1 - self.floor) * left)


def schedule_of(
    config: Mapping[str, object] | None, *, peak: float, warmup: int, steps: int, floor: float
) -> Schedule:
    """Return the schedule that a config says; what it leaves out is as the job's own parameters.

    Raises:
        ValueError: It has no such kind or field, or a value that is none.
    """
    kind, values = fields_of("schedule", config or {}, KINDS)
    names = {key: f"schedule.{key}" for key in KINDS["wsd"]}
    names |= {key: name for key, name in _OF_THE_JOB.items() if key not in values}
    values = {"warmup": warmup, "floor": floor, "decay": _DECAY, **values}
    return Schedule(
        peak=peak,
        steps=steps,
        kind=kind,
        warmup=int(number(names["warmup"], values["warmup"], most=math.inf, whole=True)),
        floor=number(names["floor"], values["floor"], most=1.0),
        decay=number(names["decay"], values["decay"], most=1.0),
    )
