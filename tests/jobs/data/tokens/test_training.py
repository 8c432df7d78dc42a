"""A training reads shards of tokens, and goes on where it stood, with however many workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.pretraining import pretrain
from tests.jobs.data.tokens.corpora import RECIPE
from tests.jobs.local_context import LocalContext
from tests.jobs.test_pretraining import same_bits


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tokens: Path) -> LocalContext:
    ctx = LocalContext(folder=tmp_path_factory.mktemp("trained"), inputs={"data": tokens})
    pretrain(ctx, **RECIPE)
    return ctx


def test_the_loss_goes_down(undisturbed: LocalContext) -> None:
    losses = undisturbed.series("train/loss")
    assert len(losses) == RECIPE["steps"]
    assert losses[-1] < losses[0] - 0.05
    assert len(undisturbed.series("validation/loss")) == 2


def test_a_lost_worker_goes_on_bit_by_bit(
    tmp_path: Path, tokens: Path, undisturbed: LocalContext
) -> None:
    lost = LocalContext(folder=tmp_path, inputs={"data": tokens}, stop_after=7)
    with pytest.raises(InterruptedError):
        pretrain(lost, **RECIPE)
    resumed = LocalContext(folder=tmp_path, inputs={"data": tokens})
    pretrain(resumed, **RECIPE)
    assert resumed.points[0][0] == 6
    assert same_bits(resumed, undisturbed)
