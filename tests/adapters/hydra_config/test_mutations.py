"""Whatever stands in a config: it is taken, or refused by short lines with their paths."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import wiring
from orchestrator.adapters import hydra_config
from orchestrator.core.errors import LINE, ConfigError, PlanError

Place = tuple[str | int, ...]

SHIPPED = (
    ("pipeline=r2",),
    ("pipeline=smoke", "fleet=rehearsal"),
    ("experiment=ascend_breaks",),
    ("pipeline=noop", "fleet=r2", "cluster=local"),
)
ODD = (
    *(None, True, 0, -1, 10**15, 10**30, 2**63, 0.5, float("nan"), float("inf"), -0.0),
    *("", " ", "a" * 100_000, "\n\x1b[31m", "\ud800", "${a}", "???", "1:30", "true", "..", "a.b"),
    *(
        [],
        {},
        [[]],
        {"": ""},
        {"a": {"b": 1}},
        ["a"] * 1000,
        [None],
        {"raise": 1},
        "raise",
        "cuda",
    ),
    {"n" * 1000: "x"},
    {"a\nb": 1},
)


@cache
def config(words: tuple[str, ...]) -> Mapping[str, Any]:
    """Return a config that ships, as plain data."""
    return hydra_config.compose(words).resolved  # type: ignore[return-value]


@cache
def places(words: tuple[str, ...]) -> tuple[Place, ...]:
    """Return where something stands in a config that ships; signatures are all alike."""
    known = {key: value for key, value in config(words).items() if key != "signatures"}
    return tuple(_places(known, ()))


def _places(data: Any, path: Place) -> Iterator[Place]:
    inside = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in inside:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*path, key))


def put(data: Any, place: Place, value: Any, *, beside: bool) -> None:
    """Put `value` at `place`, or under a name of its own beside it, where that is still there."""
    *parents, last = place
    for key in parents:
        if not isinstance(data, dict | list) or (isinstance(data, dict) and key not in data):
            return
        if isinstance(data, list) and (not isinstance(key, int) or key >= len(data)):
            return
        data = data[key]
    if isinstance(data, dict):
        data[f"{last}x" if beside else last] = value
    elif isinstance(data, list) and data:
        data[-1] = value


odd = st.sampled_from(ODD) | st.text(max_size=30) | st.integers() | st.floats()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), words=st.sampled_from(SHIPPED))
def test_a_config_with_anything_anywhere_is_taken_or_refused_by_short_lines(
    data: st.DataObject, words: tuple[str, ...]
) -> None:
    mutated = deepcopy(dict(config(words)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(words)))
        put(mutated, place, deepcopy(data.draw(odd)), beside=data.draw(st.booleans()))
    try:
        wiring.plan(hydra_config.parse(mutated))
    except (ConfigError, PlanError) as error:
        check(error)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_command_line_with_anything_is_taken_or_refused_by_short_lines(
    data: st.DataObject,
) -> None:
    place = data.draw(st.sampled_from(places(SHIPPED[1])))
    path = ".".join(map(str, place))
    value = data.draw(odd)
    text = value if isinstance(value, str) else json.dumps(value)
    word = data.draw(st.sampled_from((f"{path}={text}", f"+{path}x={text}", f"~{path}", text)))
    try:
        wiring.planned([*SHIPPED[1], word])
    except ConfigError as error:
        check(error)


def check(error: ConfigError | PlanError) -> None:
    """Check that each problem is one line that can be read."""
    assert error.problems
    for problem in error.problems:
        assert len(str(problem)) <= LINE
        assert str(problem).isprintable()
