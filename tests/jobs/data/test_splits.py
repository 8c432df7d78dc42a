from __future__ import annotations

from collections import Counter

import pytest

from jobs.data.splits import SPLITS, split_of

KEYS = [f"item {number}" for number in range(4000)]


def places(seed: int = 0) -> list[str]:
    return [split_of(key, seed=seed, validation=0.1, test=0.2) for key in KEYS]


def test_the_same_content_always_lands_in_the_same_split() -> None:
    assert places() == places()


def test_another_seed_deals_anew() -> None:
    assert places(seed=0) != places(seed=1)


def test_splits_get_about_their_shares() -> None:
    sizes = Counter(places())

    assert set(sizes) == set(SPLITS)
    assert sizes["validation"] / len(KEYS) == pytest.approx(0.1, abs=0.02)
    assert sizes["test"] / len(KEYS) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (-0.1, 0.1), (0.1, -0.1)])
def test_shares_that_leave_nothing_to_train_on_are_refused(validation: float, test: float) -> None:
    with pytest.raises(ValueError, match="leave nothing to train on"):
        split_of("x", seed=0, validation=validation, test=test)
