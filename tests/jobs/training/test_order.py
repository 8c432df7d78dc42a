from __future__ import annotations

import pytest

from jobs.training.order import Order, mix


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
