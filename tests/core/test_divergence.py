"""A loss that went astray is told by its first sure sign; a normal one never is."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable

import pytest

from orchestrator.core.runs.divergence import FEWEST, Guard
from orchestrator.core.spec.policy import Watch

Curve = Callable[[random.Random, int], float]


def first(values: Iterable[float], **watch: float) -> str | None:
    guard = Guard(Watch(**watch))  # type: ignore[arg-type]
    found = (guard.divergence(value, step) for step, value in enumerate(values, 1))
    return next((said for said in found if said), None)


def falling(noise: float, floor: float = 1.8, start: float = 10.8) -> Curve:
    """Return the curve of a language model: a power law down to a floor, and noise of a batch."""

    def at(draw: random.Random, step: int) -> float:
        smooth = floor + (start - floor) * (1 + step / 20) ** -0.6
        return max(0.0, smooth * (1 + draw.gauss(0.0, noise)))

    return at


def overfitting(draw: random.Random, step: int) -> float:
    """Fall to zero, where now and then one token of a batch is wrong."""
    wrong = 0.08 if draw.random() < 0.05 else 0.0
    return float(2.0 * math.exp(-step / 40) + wrong + draw.random() * 1e-4)


def warming_up(draw: random.Random, step: int) -> float:
    """Rise gently at first, as a rate warms up, and then fall."""
    return float(3.0 + 0.8 * math.sin(step / 30) * math.exp(-step / 200) + draw.gauss(0, 0.05))


def bumpy(draw: random.Random, step: int) -> float:
    """Hold a spike of a bad batch now and then, which the next step has forgotten."""
    return falling(0.02)(draw, step) * (4.0 if step % 97 == 96 else 1.0)


def in_levels(draw: random.Random, step: int) -> float:
    """Change with the mix of the data: a third more from one step to the next."""
    return (1.5 if (step // 100) % 2 else 2.0) + draw.gauss(0, 0.01)


CURVES: dict[str, Curve] = {
    "falling": falling(0.01),
    "noisy": falling(0.15),
    "small": falling(0.3, floor=0.02, start=0.7),
    "overfitting": overfitting,
    "warming up": warming_up,
    "bumpy": bumpy,
    "in levels": in_levels,
    "flat": lambda _draw, _step: 0.6931,
    "negative": lambda draw, step: -step / 100 + draw.gauss(0, 0.1),
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("seed", range(10))
def test_a_normal_curve_is_never_told(name: str, seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 - a test's own
    assert first(CURVES[name](draw, step) for step in range(1, 601)) is None


@pytest.mark.parametrize(
    ("value", "said"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")]
)
def test_what_is_no_number_is_told_at_once(value: float, said: str) -> None:
    assert first([2.0, value]) == f"train/loss is {said} at step 2"
    assert first([value], window=0, patience=5) == f"train/loss is {said} at step 1"


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_explodes_is_told_within_the_patience(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 - a test's own
    curve = [falling(0.03)(draw, step) for step in range(1, 228)]
    told = first([*curve, 40.0, 70.0, 90.0])
    assert told is not None
    assert told.startswith("train/loss 90 at step 230 is ")
    assert " deviations above the mean " in told
    assert told.endswith(" of the last 20")


def test_spikes_with_a_normal_value_between_are_no_divergence() -> None:
    calm = [2.0, 2.1] * 10
    assert first([*calm, 50.0, 50.0, 2.0, 50.0, 50.0, 2.0]) is None
    assert first([*calm, 50.0, 50.0, 50.0]) is not None
    assert first([*calm, 50.0], patience=1) is not None


def test_the_first_values_say_nothing_of_spikes() -> None:
    assert first([0.1] * (FEWEST - 1) + [50.0]) is None


def test_without_a_window_there_are_no_spikes() -> None:
    assert first([2.0] * 30 + [1e6] * 5, window=0) is None


def test_a_small_window_is_enough_where_it_is_asked_for() -> None:
    assert first([2.0, 2.1, 2.0, 90.0], window=3, patience=1) is not None


@pytest.mark.parametrize("value", [65504.0, -65504.0, 3.4028234663852886e38])
def test_a_chip_that_saturates_is_told_by_its_plateau(value: float) -> None:
    said = first([2.0, value, value, value])
    assert said == f"train/loss is stuck at {value:g} at step 4: the chip shows no inf or nan"
    assert first([2.0, value, 2.0, value, 2.0, value]) is None


def test_a_loss_that_falls_to_exactly_zero_is_told_and_one_that_creeps_there_is_not() -> None:
    assert first([2.0] * 20 + [0.0] * 3) is not None
    assert first([2.0] * 20 + [0.0, 2.0]) is None
    assert first([2.0 * 0.8**n for n in range(40)] + [0.0] * 10) is None
