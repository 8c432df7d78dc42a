"""What is kept, what is not, and what nobody can tell yet."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jobs.parity.comparison import Comparison
from jobs.parity.verdict import (
    WORDS,
    Demands,
    Evidence,
    Threshold,
    demands_of,
    sentence,
    thresholds,
)
from tests.jobs.parity.conftest import LIMITS, PARAMS
from tests.jobs.parity.test_confidence import TEXTS, compared

COUNTS = {"nan": 0.0, "tokenizer": 0.0, "template": 0.0, "ends": 0.0, "config": 0.0}
COUNTS |= {"generation": 0.0, "record": 0.0, "weights": 0.001, "unquantized": 0.001}
COUNTS |= {"rows": 0.001, "unquantized_rows": 0.001, "top1": 0.9}
COUNTS |= {"sums": 0.001, "unquantized_sums": 0.001, "groups": 0.25}
ASKED = Demands(
    limits=LIMITS["bf16"],
    allowances=PARAMS["allowances"]["bf16"],
    factor=3.0,
    confidence=0.95,
)
MARGINS = np.zeros(TEXTS * 5, np.float32)


def judged(served: Comparison, *floor: Comparison, **counts: float) -> dict[str, Threshold]:
    evidence = Evidence(
        served=served,
        floor=floor,
        margins=MARGINS,
        counts={**COUNTS, **counts},
        seed=1,
    )
    return {one.name: one for one in thresholds(evidence, ASKED)}


def test_a_model_as_noisy_as_its_own_arithmetic_keeps_every_limit() -> None:
    found = judged(compared(1, 1e-3), compared(2, 1e-3))
    assert [*found] == [*WORDS]
    assert sentence([*found.values()], "bf16", "ascend") == ""
    assert found["kl_mean"].limit == pytest.approx(3 * found["kl_mean"].floor + 5e-4)


def test_many_times_the_noise_is_another_model() -> None:
    found = judged(compared(1, 6e-3), compared(2, 1e-3))
    said = sentence([*found.values()], "bf16", "ascend")
    assert said.startswith("kl_mean is 0.00")
    assert "is its own noise: the model on pool 'ascend' is not the one that was trained" in said


def test_what_too_few_texts_say_is_undecided_and_not_passed() -> None:
    found = judged(compared(1, 3.0e-3), compared(2, 1e-3))["kl_mean"]
    assert (found.within, found.kept) == (True, False)
    said = sentence([found], "bf16", "ascend")
    assert said.startswith("undecided: kl_mean is 0.00")
    assert "40 texts make that only" in said
    assert found.wanted > TEXTS
    assert said.endswith(f"ask the reference more questions, some {found.wanted}")


def test_a_floor_beyond_what_honest_models_show_excuses_nothing() -> None:
    found = judged(compared(1, 0.5), compared(2, 0.5))["kl_mean"]
    assert (found.limit, found.within) == (LIMITS["bf16"]["kl_mean"], False)


def test_where_noise_alone_breaks_the_limit_the_verdict_is_undecided() -> None:
    kept = judged(compared(1, 0.5), compared(2, 0.5))
    figure = kept["kl_mean"]
    assert figure.drowned
    said = sentence([figure], "bf16", "ascend")
    assert said.startswith("undecided: kl_mean is ")
    assert said.endswith("ask the reference more questions, or train the model longer")
    surely = judged(compared(1, 0.5), compared(2, 0.5), unquantized=0.02)["unquantized"]
    assert sentence([figure, surely], "bf16", "ascend").startswith("unquantized is 0.02, at most")


def test_figures_without_a_floor_are_exact() -> None:
    found = judged(compared(1, 1e-3), compared(2, 1e-3), nan=1.0, weights=math.nan)
    assert sentence([*found.values()], "bf16", "p").startswith("nan is 1, at most 0 is allowed")
    assert (found["weights"].kept, found["weights"].confidence) == (False, None)


def test_experts_that_only_one_side_tells_of_are_not_judged() -> None:
    mute = compared(1, 1e-3)
    mute = Comparison(
        **{name: getattr(mute, name) for name in Comparison.__slots__ if name != "routed"}
    )
    assert "routers" not in judged(mute, compared(2, 1e-3))
    assert "routers" not in judged(compared(1, 1e-3), mute)


def test_limits_of_a_run_of_before_lack_what_has_come_since() -> None:
    before = {form: {k: v for k, v in of.items() if k != "groups"} for form, of in LIMITS.items()}
    demands = demands_of("bf16", before, PARAMS["allowances"], PARAMS["factor"], 0.99)
    assert demands.limits == {**LIMITS["bf16"], "groups": 64.0}
