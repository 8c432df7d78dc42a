"""Links: whom each worker exchanges with, and which of them is called slow."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from jobs.qualification.collectives import COLLECTIVES
from jobs.qualification.links import (
    BETWEEN,
    ROUNDS,
    WITHIN,
    Link,
    Spot,
    partners,
    slow_ones,
    spots,
)
from tests.jobs.recipes import SMALL
from tests.jobs.scripts import printed_by
from tests.ports import free_address


def test_workers_have_their_places_on_their_nodes() -> None:
    assert spots(["b", "a", "b", "a"]) == [Spot(0, 0), Spot(1, 0), Spot(0, 1), Spot(1, 1)]


@pytest.mark.parametrize("sizes", [[2], [3], [8], [4, 4, 4], [3, 2], [1] * 5, [8] * 3])
def test_both_of_a_pair_meet_in_the_same_round_and_every_two_of_few_do(sizes: list[int]) -> None:
    places = spots([str(node) for node, count in enumerate(sizes) for _ in range(count)])
    rounds = [list(partners(rank, places)) for rank in range(len(places))]
    assert len({len(mine) for mine in rounds}) == 1
    met: Counter[tuple[int, int]] = Counter()
    for rank, mine in enumerate(rounds):
        for number, (kind, other) in enumerate(mine):
            if other is not None:
                assert rounds[other][number] == (kind, rank)
                assert (places[rank].node == places[other].node) == (kind == WITHIN)
                assert kind == WITHIN or places[rank].local == places[other].local
                met[rank, other] += 1
    assert set(met.values()) == {1}
    near = [(a, b) for a, x in enumerate(places) for b, y in enumerate(places) if a != b]
    same = {(a, b) for a, b in near if places[a].node == places[b].node}
    assert same <= met.keys()


def test_2048_workers_take_no_more_rounds_than_32() -> None:
    places = spots([str(rank // 8) for rank in range(2048)])
    for rank in (0, 1, 1023, 2047):
        mine = list(partners(rank, places))
        kinds = Counter(kind for kind, _ in mine)
        assert kinds == {WITHIN: 8, BETWEEN: ROUNDS}
        others = [other for _, other in mine if other is not None]
        assert len(others) == len(set(others)) >= 7 + ROUNDS - 1


def links(rates: dict[tuple[int, int], float]) -> list[Link]:
    return [
        Link(BETWEEN, a, b, rate) for (x, y), rate in rates.items() for a, b in ((x, y), (y, x))
    ]


def test_a_worker_whose_links_are_all_slow_is_named_once() -> None:
    rates = {(a, b): 1.0 if 3 in {a, b} else 40.0 for a in range(6) for b in range(a + 1, 6)}
    said = list(slow_ones(links(rates), 1.5, pairs=True))
    assert said == ["rank 3: 1 GB/s, 40 GB/s is usual"]


def test_one_slow_link_is_named_by_its_ends_and_a_little_slower_is_not() -> None:
    rates = dict.fromkeys(((a, b) for a in range(4) for b in range(a + 1, 4)), 40.0)
    rates |= {(0, 1): 30.0, (1, 2): 2.0}
    assert list(slow_ones(links(rates), 1.5, pairs=True)) == [
        "ranks 1 and 2: 2 GB/s, 40 GB/s is usual"
    ]
    assert list(slow_ones(links(rates), 1.5, pairs=False)) == []


def test_a_slow_rail_is_found_by_the_real_job_on_an_emulated_chip(tmp_path: Path) -> None:
    kinds = sum(len(dtypes) for *_, dtypes in COLLECTIVES)
    at_the_links = 5 + 2 * kinds + 1  # after the rounds of pace, and two sizes of each
    slow = {"what": "link", "at_step": at_the_links, "rank": 2, "seconds": 0.2}
    spec = {
        "folder": str(tmp_path),
        "rendezvous": free_address(),
        "workers": 3,
        "params": {"model": SMALL, "steps": 1, "soak_seconds": 0.0, "quick": True},
        "emulation": {"device": "npu", "backend": "hccl", "faults": [slow]},
    }
    printed = printed_by("qualification.emulated_gang", spec)
    assert "  failed  " not in printed
    [flaw] = [line for line in printed.splitlines() if line.startswith("links")]
    assert "  limited  " in flaw
    assert "rank 2: " in flaw
    assert "rank 0: " not in flaw
