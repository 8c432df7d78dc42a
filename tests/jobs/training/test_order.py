from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from jobs.training.order import MixedOrder, Order, mix, permuted


def test_every_epoch_takes_every_row_once_in_another_order() -> None:
    order = Order(10, seed=3)
    first, second = order.take(0, 10).tolist(), order.take(10, 10).tolist()

    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_rows_depend_on_seed_and_position_alone() -> None:
    whole = Order(10, seed=3).take(0, 35).tolist()
    order = Order(10, seed=3)

    assert order.take(28, 7).tolist() == whole[28:]
    assert order.take(7, 15).tolist() == whole[7:22]
    assert Order(10, seed=4).take(0, 35).tolist() != whole


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        Order(0, seed=0)


def test_close_numbers_give_unlike_seeds() -> None:
    seeds = {mix(a, b) for a in range(30) for b in range(30)}

    assert len(seeds) == 900
    assert all(0 <= seed < 1 << 63 for seed in seeds)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9, 10, 37, 256, 1000, 65_537])
def test_every_size_has_its_permutations(size: int) -> None:
    for key in range(3):
        numbers = permuted(np.arange(size), size, mix(key))
        assert sorted(numbers.tolist()) == list(range(size))


def test_a_permutation_puts_every_row_everywhere_alike() -> None:
    size, draws = 8, 2000
    counts = np.zeros((size, size))
    for key in range(draws):
        counts[np.arange(size), permuted(np.arange(size), size, mix(key))] += 1
    expected = draws / size
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 49 + 5 * (2 * 49) ** 0.5


def test_neighbours_do_not_stay_together() -> None:
    numbers = permuted(np.arange(100_000), 100_000, mix(1))
    steps = np.abs(np.diff(numbers))
    assert steps.mean() == pytest.approx(100_000 / 3, rel=0.02)
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.02


def test_the_order_of_a_trillion_rows_takes_no_memory() -> None:
    order = Order(10**12, seed=1)
    tracemalloc.start()
    taken = order.take(7 * 10**12 - 3, 64)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(taken.tolist())) == 64
    assert most < 100_000


def test_a_mixture_holds_its_weights_in_every_stretch() -> None:
    order = MixedOrder([50, 70, 1000], [0.5, 0.3, 0.2], seed=3)
    taken = order.take(0, 200_000).numpy()
    sources = np.searchsorted([50, 120], taken, side="right")
    for source, weight in enumerate((0.5, 0.3, 0.2)):
        so_far = np.cumsum(sources == source)
        ideal = weight * np.arange(1, len(taken) + 1)
        assert np.abs(so_far - ideal).max() < 3


def test_each_source_of_a_mixture_is_taken_whole_before_it_is_taken_again() -> None:
    order = MixedOrder([50, 70], [3, 1], seed=3)
    taken = order.take(0, 70_000)
    first = taken[taken < 50]
    assert sorted(first[:50].tolist()) == sorted(first[50:100].tolist()) == list(range(50))
    assert first[:50].tolist() != first[50:100].tolist()
    second = taken[taken >= 50]
    assert sorted(second[:70].tolist()) == list(range(50, 120))


def test_a_mixture_goes_on_from_any_position() -> None:
    whole = MixedOrder([5, 7, 11], [1, 2, 3], seed=3).take(0, 140_000)
    order = MixedOrder([5, 7, 11], [1, 2, 3], seed=3)
    assert order.take(65_530, 70_000).equal(whole[65_530:135_530])
    assert order.take(17, 9).equal(whole[17:26])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 0.0], "each source of a mixture has one above 0"),
        ([1.0, float("nan")], "each source of a mixture has one above 0"),
        ([1.0, 1e-6], "one is below 1.52588e-05, and would get no row"),
    ],
)
def test_weights_that_give_no_rows_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixedOrder([5, 5], weights, seed=0)
