"""A config of torchtitan with a model of a size, on random rows: what reading costs is left out.

`python -m jobs.torchtitan.cpu --module tests.benchmarks.sharded.by_torchtitan --config tiny ...`
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.loss import CrossEntropyLoss
from torchtitan.models.common import ComplexRoPE, Embedding, Linear
from torchtitan.models.common.config_utils import decoder_vocab_size
from torchtitan.models.llama3 import _build_llama3_layers, model_registry
from torchtitan.models.llama3.config_registry import llama3_debugmodel

from tests.benchmarks.sharded.sizes import SIZES, Size, Steps


def tiny() -> Any:
    """Return the config of the tiny model."""
    return _config(SIZES["tiny"])


def small() -> Any:
    """Return the config of the model of 125M parameters."""
    return _config(SIZES["125M"])


class RandomRows(BaseDataLoader):
    """Rows of random tokens; each step but the first begins when the one before is done."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        """Which size."""

        vocabulary: int = 0

    def __init__(self, config: Any, *, dp_rank: int, **_: Any) -> None:
        """Draw for worker `dp_rank`."""
        self._size = next(s for s in SIZES.values() if s.vocabulary == config.vocabulary)
        self._drawn = torch.Generator().manual_seed(dp_rank)

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        """Yield rows for ever."""
        size, steps, first = self._size, Steps(self._size), True
        shape = (size.rows, size.sequence + 1)
        while True:
            if not first:
                steps.done()
            first = False
            rows = torch.randint(0, size.vocabulary, shape, generator=self._drawn)
            positions = torch.arange(size.sequence).expand(size.rows, -1).contiguous()
            yield {"input": rows[:, :-1], "positions": positions}, rows[:, 1:].contiguous()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: it is never gone on with."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take nothing."""


def _config(size: Size) -> Any:
    config = llama3_debugmodel()
    spec = model_registry("debugmodel")
    config.model_spec = replace(spec, model=_model(size, spec.model))
    config.loss = CrossEntropyLoss.Config(global_vocab_size=decoder_vocab_size(config.model_spec))
    config.dataloader = RandomRows.Config(vocabulary=size.vocabulary)
    config.validator.enable = False
    config.activation_checkpoint = None
    config.training.disable_cuda_graphs = True
    config.training.steps = (
        size.steps + 1
    )  # the end of the last one that counts is seen by the next
    config.training.seq_len, config.training.local_batch_size = size.sequence, size.rows
    config.training.mixed_precision_param = "float32"
    return config


def _model(size: Size, debug: Any) -> Any:
    rope = ComplexRoPE.Config(
        dim=size.width // size.heads, max_seq_len=size.sequence, theta=500_000, scaling="llama"
    )
    embedding, head = debug.tok_embeddings, debug.lm_head
    return replace(
        debug,
        dim=size.width,
        vocab_size=size.vocabulary,
        tok_embeddings=Embedding.Config(
            num_embeddings=size.vocabulary,
            embedding_dim=size.width,
            param_init=embedding.param_init,
        ),
        norm=replace(debug.norm, normalized_shape=size.width),
        lm_head=Linear.Config(
            in_features=size.width, out_features=size.vocabulary, param_init=head.param_init
        ),
        layers=_build_llama3_layers(
            n_layers=size.layers,
            dim=size.width,
            n_heads=size.heads,
            hidden_dim=size.inner,
            rope=rope,
            attn_backend="sdpa",
        ),
    )
