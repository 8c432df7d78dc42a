"""A model that is made a weight at a time has the numbers that it has when it is made at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from jobs.training.parallel.weight_by_weight import FEWEST, ModelByWeights, UnknownStepError
from tests.jobs.formats import zoo

KINDS = (
    *("bloom", "dbrx", "deepseek_v3", "falcon", "gemma3_text", "glm4_moe", "gpt2", "gpt_neox"),
    *("gpt_oss", "llama", "mixtral", "opt", "phi3", "qwen2_moe"),
    *("qwen3", "qwen3_moe", "qwen3_next"),
)
FEWEST_OF = {"kimi_linear": 5000}  # it computes smaller ones from what it has drawn
SEED = 11


def _maker(kind: str) -> Callable[[], nn.Module]:
    config = zoo.small(kind)

    def make() -> nn.Module:
        model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        return model

    return make


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


@pytest.mark.parametrize("kind", [*KINDS, *FEWEST_OF])
def test_a_model_has_the_same_numbers_weight_by_weight(kind: str) -> None:
    make = _maker(kind)
    torch.manual_seed(SEED)
    at_once, after = _tensors(make()), torch.get_rng_state()
    torch.manual_seed(SEED)
    by_weight = ModelByWeights(make, fewest=FEWEST_OF.get(kind, FEWEST))
    handed_over: dict[str, torch.Tensor] = {}
    kept: list[Any] = []

    def take(name: str, values: torch.Tensor) -> None:
        assert not any(other() is not None for other in kept), "it is let go"
        kept.append(weakref.ref(values))
        handed_over[name] = values.clone()

    model = by_weight.hand_over(take)
    rest = _tensors(model)
    assert torch.equal(torch.get_rng_state(), after)
    assert list(handed_over) == by_weight.names
    assert handed_over.keys() == {name for name, tensor in rest.items() if tensor.is_meta}
    largest = max(tensor.numel() for tensor in handed_over.values())
    assert all(weight.is_meta or weight.numel() < largest for weight in model.parameters())
    for name, tensor in at_once.items():
        assert torch.equal(handed_over.get(name, rest[name]), tensor), name


class _Read(nn.Module):
    """A model whose weight depends on what another one has drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)
        with torch.no_grad():
            self.second.weight.copy_(self.first.weight)


class _Untouched(nn.Module):
    """A model that writes nothing into a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(32, 32))


@pytest.mark.parametrize("kind", [_Read, _Untouched])
def test_a_model_that_has_to_be_made_at_once_is_known(kind: type[nn.Module]) -> None:
    torch.manual_seed(SEED)
    before = torch.get_rng_state()
    with pytest.raises(UnknownStepError):
        ModelByWeights(kind)
    assert not ModelByWeights(kind, fewest=10_000).names
    assert torch.equal(torch.get_rng_state(), before)
