"""The hint that goes with an unknown name."""

from __future__ import annotations

import pytest

from orchestrator.core.nearest import SHOWN, choices, nearest

POOLS = ("nvidia", "ascend", "mlu590")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("nvida", "nvidia"), ("ASCEND", "ascend"), ("mlu", "mlu590"), ("tpu", None), ("", None)],
)
def test_the_nearest_name_is_one_that_is_spelled_alike(name: str, meant: str | None) -> None:
    assert nearest(name, POOLS) == meant


def test_the_hint_offers_the_nearest_and_lists_all_that_exist() -> None:
    assert choices("nvida", POOLS, "pools") == (
        "did you mean 'nvidia'? pools: ascend, mlu590, nvidia"
    )
    assert choices("x", POOLS, "pools") == "pools: ascend, mlu590, nvidia"
    assert choices("x", (), "pools") == "pools: none"


def test_a_long_list_is_cut_and_says_by_how_many() -> None:
    many = [f"{index:03}" for index in range(SHOWN + 2)]
    hint = choices("x", many, "stages")
    assert hint.endswith(f"{many[SHOWN - 1]}, and 2 more")


def test_long_names_are_listed_as_far_as_they_can_be_read() -> None:
    hint = choices("x", ["a" * 90, "b" * 90, "c" * 90, "d" * 90], "stages")
    assert hint == f"stages: {'a' * 90}, {'b' * 90}, {'c' * 90}, and 1 more"
    assert choices("x", ["a" * 400], "stages") == "stages: and 1 more"


def test_nothing_is_near_to_a_name_that_nobody_would_type() -> None:
    assert choices("a" * 101, ["a" * 100], "stages") == f"stages: {'a' * 100}"
