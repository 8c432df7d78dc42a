"""Times of several clocks, made comparable."""

from __future__ import annotations

import pytest

from orchestrator.adapters.raycluster.clock_offsets import FEWEST, ClockOffsets


def offsets(skews: dict[str, float], signs: int = FEWEST) -> ClockOffsets:
    """Return what is known after signs of nodes whose clocks go ahead by `skews`."""
    found = ClockOffsets()
    for number in range(signs):
        for node, skew in skews.items():
            way = 0.02 + 0.3 * ((number * 7) % signs) / signs
            found.heard(node, 1000.0 + number + skew, 50.0 + number + way)
    return found


@pytest.mark.parametrize("skew", [30.0, -30.0, 0.5])
def test_the_node_that_failed_first_is_known_though_its_clock_goes_wrong(skew: float) -> None:
    known = offsets({"a": 0.0, "b": skew, "c": 0.0})
    first, later = known.on_one_clock("b", 1010.0 + skew), known.on_one_clock("a", 1010.2)
    assert first == pytest.approx(1010.0)
    assert first < later


def test_what_the_way_of_a_message_explains_is_no_difference() -> None:
    known = offsets({"a": 0.0, "b": 0.05})
    assert known.on_one_clock("b", 1010.0) == 1010.0


def test_few_signs_say_nothing() -> None:
    known = offsets({"a": 0.0, "b": 30.0}, signs=FEWEST - 1)
    assert known.on_one_clock("b", 1010.0) == 1010.0
    assert offsets({"a": 0.0}).on_one_clock("unheard", 7.0) == 7.0
