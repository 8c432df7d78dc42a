"""The loss of training and of all that measures: transformers' own is the judge."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from jobs.data.dataset import IGNORE, Rows
from jobs.pretraining import pretrain
from jobs.training.loss import TokenLoss, mean_nll, nll
from jobs.training.process_group import ProcessGroup
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT

CPU = torch.device("cpu")
VOCABULARY, MOST = 320, 2**12
DENSE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "embd_pdrop": 0.0}
GPT2 |= {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 1}
# What is split, and what must not be: scores that are capped, scaled, or have a bias of their own.
SPLIT = {"llama": DENSE, "qwen3": {**DENSE, "tie_word_embeddings": False}, "gpt2": GPT2}
WHOLE = {
    "gemma2": {**DENSE, "final_logit_softcapping": 2.0},
    "cohere": {**DENSE, "logit_scale": 0.25},
    "granite": {**DENSE, "logits_scaling": 4.0},
}
TYPES = {**SPLIT, **WHOLE}


class Certain(nn.Module):
    """A model that expects token 0 everywhere: token 1 costs 20."""

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=torch.tensor([10.0, -10.0]).expand(*input_ids.shape, 2))


class Largest(TorchDispatchMode):
    """Counts the elements of the largest tensor that anything gives."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        given = func(*args, **(kwargs or {}))
        sizes = [one.numel() for one in tree_leaves(given) if isinstance(one, torch.Tensor)]
        self.count = max([self.count, *sizes])
        return given


def build(architecture: str) -> Any:
    torch.manual_seed(3)
    config = AutoConfig.for_model(architecture, **TYPES[architecture])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # a fresh head says next to nothing
    return model


def rows() -> Rows:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, VOCABULARY, (6, 17), generator=generator, dtype=torch.int32)
    labels = tokens.clone()
    labels[:, :5] = IGNORE
    labels[2] = IGNORE
    return Rows(tokens, labels)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("most", [MOST, VOCABULARY - 1, 2**26])
@pytest.mark.parametrize("architecture", TYPES)
def test_loss_and_gradients_are_those_of_transformers(
    architecture: str, most: int, precision: str
) -> None:
    bf16 = precision == "bf16"
    model, judge, data = build(architecture), build(architecture), rows()
    found = nll(TokenLoss(model, bf16=bf16, most=most), data.read(torch.arange(6)), device=CPU)
    found.backward()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        tokens, labels = data.tokens.long(), data.labels.long()
        expected = judge(input_ids=tokens, labels=labels, use_cache=False).loss
    count = int((data.labels[:, 1:] != IGNORE).sum())
    (expected * count).backward()

    assert found.item() == pytest.approx(expected.item() * count, rel=1e-6)
    theirs = gradients(judge)
    for name, gradient in gradients(model).items():
        apart = (gradient - theirs.pop(name)).norm() / gradient.norm()
        assert apart < (0.02 if bf16 else 1e-5), name
    assert not theirs


@pytest.mark.parametrize("architecture", TYPES)
def test_scores_of_many_tokens_are_never_held_at_once(architecture: str) -> None:
    model, data = build(architecture), rows()
    with Largest() as largest:
        nll(TokenLoss(model, most=MOST), data.read(torch.arange(6)), device=CPU).backward()
    everything = 6 * 16 * VOCABULARY
    weights = max(weight.numel() for weight in model.parameters())
    assert largest.count == (
        everything if architecture in WHOLE else max(weights, MOST // 320 * 320)
    )


@pytest.mark.parametrize("most", [MOST, 2**26])
@pytest.mark.parametrize("architecture", TYPES)
def test_the_loss_of_each_row_is_that_of_the_row_alone(architecture: str, most: int) -> None:
    loss, batch = TokenLoss(build(architecture).eval(), most=most), rows().read(torch.arange(6))
    with torch.no_grad():
        each = nll(loss, batch, device=CPU, by_row=True)
        alone = [nll(loss, batch[row : row + 1], device=CPU) for row in range(6)]
    torch.testing.assert_close(each, torch.stack(alone))


def test_a_gang_trains_by_the_same_loss(tmp_path: Path) -> None:
    alone, shared, data = build("llama"), build("llama"), rows()
    nll(TokenLoss(alone, most=MOST), data.read(torch.arange(6)), device=CPU).backward()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        for unused in (False, True):
            loss = TokenLoss(shared, most=MOST)
            wrapped = DistributedDataParallel(loss, find_unused_parameters=unused)
            shared.zero_grad()
            nll(wrapped, data.read(torch.arange(6)), device=CPU).backward()
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(gradients(shared), gradients(alone))


def test_the_mean_over_more_tokens_than_float32_can_count_is_exact(tmp_path: Path) -> None:
    width, many, late = 4097, 4096, 1000
    tokens = torch.zeros(many + late, width, dtype=torch.int32)
    labels = torch.zeros_like(tokens)
    labels[many:] = IGNORE
    labels[many:, 1] = 1
    rows = Rows(tokens, labels)
    parts = [torch.arange(many), *(torch.tensor([row]) for row in range(many, many + late))]
    found = mean_nll(
        TokenLoss(Certain()), rows, parts, ProcessGroup(LocalContext(folder=tmp_path))
    )
    assert found == pytest.approx(20.0 * late / (2**24 + late), rel=1e-5)


def test_validation_computes_as_training_does(tmp_path: Path, sums: Path) -> None:
    ctxs = [LocalContext(folder=tmp_path / name, inputs={"data": sums}) for name in "ab"]
    recipe = {**SHORT, "steps": 3, "learning_rate": 0.0}
    mixed, exact = (
        pretrain(ctx, **recipe, precision=precision)
        for ctx, precision in zip(ctxs, ("bf16", "fp32"), strict=True)
    )
    assert mixed["validation/loss"] != exact["validation/loss"]
    assert mixed["validation/loss"] == pytest.approx(exact["validation/loss"], rel=0.01)
