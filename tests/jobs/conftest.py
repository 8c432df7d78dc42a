"""A small data set of sums, and one model trained on it for a few steps, for all tests of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from jobs.data import arithmetic
from jobs.pretraining import pretrain
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small models are fastest on one thread, and the tests share their cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ctx = LocalContext(folder=tmp_path_factory.mktemp("sums"))
    arithmetic.prepare(ctx, draws=600, validation=0.1, test=0.1)
    return ctx.output


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, sums: Path) -> LocalContext:
    """A context whose training on `sums` went from the first step to the last."""
    ctx = LocalContext(folder=tmp_path_factory.mktemp("trained"), inputs={"data": sums})
    pretrain(ctx, **SHORT)
    return ctx
