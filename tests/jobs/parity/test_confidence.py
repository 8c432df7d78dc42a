"""How sure a limit is: judged by scipy's exact bounds, and by what is drawn."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from jobs.parity import confidence
from jobs.parity.comparison import Comparison
from orchestrator.core.spec.parity import QUANTILES

TEXTS, PLACES = 40, 5


def compared(seed: int, scale: float = 1.0) -> Comparison:
    rng = np.random.default_rng(seed)
    kl = (rng.exponential(scale, TEXTS * PLACES)).astype(np.float32)
    return Comparison(
        text=np.repeat(np.arange(TEXTS), PLACES).astype(np.float32),
        kl=kl,
        shift=rng.normal(0.0, 0.1, kl.size).astype(np.float32),
        margin=kl,
        same=(rng.random(kl.size) > 0.1).astype(np.float32),
        routed=rng.uniform(0.0, 0.1, kl.size).astype(np.float32),
        differs=np.zeros(TEXTS, np.float32),
        lost=np.zeros(TEXTS, np.float32),
    )


def draws(**changes: object) -> confidence.Draws:
    told = {
        "repeats": confidence.draw(TEXTS, 7),
        "sure": np.ones(TEXTS * PLACES, np.float32),
        "quantile": 0.99,
    }
    return confidence.Draws(**{**told, **changes})


@pytest.mark.parametrize(("happened", "texts"), [(0, 20), (3, 64), (40, 128)])
def test_a_share_is_as_sure_as_scipys_exact_bound(happened: int, texts: int) -> None:
    exact = stats.binomtest(happened, texts, alternative="less").proportion_ci(0.95, "exact")
    assert confidence.exact(happened, texts, exact.high) == pytest.approx(0.95, abs=1e-6)


@pytest.mark.parametrize(("limit", "sure"), [(0.0, 0.0), (1.0, 1.0), (1.2, 1.0)])
def test_a_limit_that_is_nothing_or_all_is_kept_never_or_always(limit: float, sure: float) -> None:
    assert confidence.exact(3, 10, limit) == sure


def test_few_texts_without_a_difference_are_no_evidence() -> None:
    assert confidence.exact(0, 8, 0.1) < 0.6
    assert confidence.paired(np.zeros(8, np.float32), 0.1) < 0.85
    assert confidence.exact(0, 64, 0.1) > 0.99
    assert confidence.paired(np.zeros(64, np.float32), 0.1) > 0.99


def test_answers_that_are_lost_and_won_alike_are_no_loss_but_make_it_less_sure() -> None:
    none = np.zeros(100, np.float32)
    both = none.copy()
    both[:10], both[10:20] = 1.0, -1.0
    assert 0.9 < confidence.paired(both, 0.1) < confidence.paired(none, 0.1)
    assert confidence.paired(np.abs(both), 0.1) < 0.01


def test_the_first_draw_is_the_texts_as_they_are() -> None:
    one = compared(1)
    found = {name: values[0] for name, values in confidence.figures_of(one, draws()).items()}
    assert found["kl_mean"] == pytest.approx(one.kl.mean(), rel=1e-5)
    assert found["kl_tail"] == np.quantile(one.kl, 0.99, method="inverted_cdf")
    assert found["perplexity"] == pytest.approx(abs(np.expm1(one.shift.mean())), rel=1e-5)
    assert found["flips"] == pytest.approx(1.0 - one.same.mean(), rel=1e-5)
    assert found["routers"] == pytest.approx(one.routed.mean(), rel=1e-5)


def test_each_drawn_quantile_is_that_of_the_texts_that_were_drawn() -> None:
    one, taken = compared(2), confidence.draw(TEXTS, 7)
    found = confidence.figures_of(one, draws(repeats=taken))["kl_tail"]
    for at in (1, 2, 500):
        repeated = np.repeat(one.kl, taken[at].astype(int)[one.text.astype(int)])
        assert found[at] == np.quantile(repeated, 0.99, method="inverted_cdf")


def test_a_drawn_confidence_covers_as_often_as_it_says() -> None:
    """Of samples whose true mean is 1, a bound that is 95 % sure lies below 1 in some 5 %."""
    below = 0
    for seed in range(200):
        figures = confidence.figures_of(compared(seed), draws())["kl_mean"]
        below += np.quantile(figures, 0.95) < 1.0
    assert 2 <= below <= 24


def test_where_the_floor_moves_margins_the_reference_is_not_sure() -> None:
    floor = compared(3, 0.01)
    margins = np.linspace(0.0, 1.0, TEXTS * PLACES, dtype=np.float32)
    sure = confidence.sure(margins, [floor], 3.0, 0.99)
    edge = 3.0 * float(np.quantile(floor.margin, 0.99))
    assert (sure == (margins > edge)).all()
    assert 0 < sure.sum() < sure.size


def test_many_places_allow_a_higher_quantile() -> None:
    found = [confidence.quantile_of(places) for places in (10, 499, 500, 4999, 5000)]
    assert found == [0.95, 0.95, 0.99, 0.99, 0.999]


def test_one_far_place_among_few_does_not_decide_over_the_tail() -> None:
    one = compared(4, 1e-4)
    one.kl[7] = 5.0
    tail = confidence.figures_of(one, draws(quantile=confidence.quantile_of(one.kl.size)))
    assert confidence.drawn(tail["kl_tail"], np.full(confidence.ROUNDS + 1, 0.01)) > 0.99


def test_the_quantiles_are_those_of_a_plan() -> None:
    for quantile, fewest in QUANTILES:
        assert confidence.quantile_of(max(fewest, 1)) == quantile
    for above, (_, fewest) in pairwise(QUANTILES):
        assert above[0] > confidence.quantile_of(above[1] - 1)
        assert above[1] > fewest
