"""What a mean loss is counted in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from jobs.data.dataset import IGNORE, Rows
from jobs.training.gang import Gang
from jobs.training.step import mean_nll
from tests.jobs.local_context import LocalContext


class _Certain(nn.Module):
    """A model that expects token 0 everywhere: token 1 costs 20."""

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=torch.tensor([10.0, -10.0]).expand(*input_ids.shape, 2))


def test_the_mean_over_more_tokens_than_float32_can_count_is_exact(tmp_path: Path) -> None:
    width, many, late = 4097, 4096, 1000
    tokens = torch.zeros(many + late, width, dtype=torch.int32)
    labels = torch.zeros_like(tokens)
    labels[many:] = IGNORE
    labels[many:, 1] = 1
    rows = Rows(tokens, labels)
    parts = [torch.arange(many), *(torch.tensor([row]) for row in range(many, many + late))]
    found = mean_nll(_Certain(), rows, parts, Gang(LocalContext(folder=tmp_path)))
    assert found == pytest.approx(20.0 * late / (2**24 + late), rel=1e-5)
