"""Experts stay at work: what evens their loads, and what is counted."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch

from jobs.data.dataset import Rows
from jobs.pretraining import pretrain
from jobs.training import model as models
from jobs.training.balance import Balance
from jobs.training.loss import TokenLoss
from jobs.training.optimizers import OptimizerConfig, optimizer_for
from jobs.training.process_group import ProcessGroup
from jobs.training.step import Stepper
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT
from tests.jobs.test_pretraining import close, same_bits, train_gang, weights
from tests.jobs.training.test_skipping import Tokenizer

CPU = torch.device("cpu")
PAD = Tokenizer.pad_token_id
EVEN = 2.5  # of the busiest expert of eight; 8 is a collapse
COMMON = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 1,
}
BY_LOSS = {**COMMON, "num_experts": 8}
BY_BIAS = {
    **COMMON,
    "n_routed_experts": 8,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}


def rows_of_patterns() -> Rows:
    starts = torch.randint(3, 40, (256, 1), generator=torch.Generator().manual_seed(1))
    tokens = ((starts + 3 * torch.arange(16)) % 37 + 3).to(torch.int32)
    return Rows(tokens, tokens.clone())


def stepper(
    folder: Path, architecture: str, fields: dict[str, Any], *, rate: float, accumulate: int = 1
) -> Stepper:
    """Return what trains a small model of experts."""
    torch.manual_seed(3)
    model = models.build(architecture, fields, Tokenizer()).train()
    group = ProcessGroup(LocalContext(folder=folder))
    return Stepper(
        group=group,
        wrapped=TokenLoss(model),
        optimizer=optimizer_for(model, OptimizerConfig(beta2=0.98), rate=1e-2, device=CPU),
        rows=rows_of_patterns(),
        pad=PAD,
        accumulate=accumulate,
        clip=1.0,
        balance=Balance(model, group, rate=rate),
    )


def busiest(training: Stepper, steps: int = 100) -> float:
    """Train; return the load of the busiest expert in the end, as a multiple of the mean."""
    loads = []
    for step in range(steps):
        training.take(torch.arange(step * 16, step * 16 + 16) % 256, 1e-2)
        loads.append(training.balance.figures()["router/load"])
    return mean(loads[-20:])


@torch.no_grad()
def favour_one_expert(training: Stepper) -> None:
    """Have the routers send all tokens to their first expert."""
    model: Any = training.wrapped.model
    model.get_input_embeddings().weight += 1.0
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith("e_score_correction_bias"):
            tensor[0] += 0.5
        elif name.endswith("mlp.gate.weight") and training.balance.has_loss:
            tensor[0] += 0.2


def test_a_loss_brings_experts_back_that_get_no_token(tmp_path: Path) -> None:
    found = []
    for coefficient in (1e-9, 0.3):
        fields = {**BY_LOSS, "router_aux_loss_coef": coefficient}
        training = stepper(tmp_path, "qwen3_moe", fields, rate=0.0)
        favour_one_expert(training)
        found.append(busiest(training, steps=160))  # how fast it is depends on the CPU's sums
    assert found[0] > 3 * EVEN
    assert found[1] < EVEN


def test_layers_that_send_all_to_experts_of_their_own_are_not_even(tmp_path: Path) -> None:
    fields = {**BY_LOSS, "router_aux_loss_coef": 1.0}
    balance = stepper(tmp_path, "qwen3_moe", fields, rate=0.0).balance
    balance.watch(torch.ones(2, 8, dtype=torch.bool))
    for expert, layer in enumerate(balance._layers):
        layer.scores = 20.0 * torch.eye(8)[torch.full((16,), expert)]
    assert float(balance.loss()) > 7.9, "as of one expert for all: 8; 1 is even"


def test_a_bias_brings_experts_back_that_get_no_token(tmp_path: Path) -> None:
    found = []
    for rate in (0.0, 0.01):
        training = stepper(tmp_path, "deepseek_v3", BY_BIAS, rate=rate)
        favour_one_expert(training)
        found.append(busiest(training))
    assert found[0] > 3 * EVEN
    assert found[1] < EVEN


def test_a_bias_moves_by_the_rate_towards_an_even_load_of_tokens_that_are_no_padding(
    tmp_path: Path,
) -> None:
    training = stepper(tmp_path, "deepseek_v3", BY_BIAS, rate=0.25, accumulate=3)
    training.rows.tokens[:, 9:] = PAD
    model: Any = training.wrapped.model
    gate = model.model.layers[1].mlp.gate
    seen: list[torch.Tensor] = []
    gate.register_forward_hook(lambda _, __, out: seen.append(out[2].reshape(-1, 15)[:, :9]))
    done = training.take(torch.arange(16), 1e-2)
    load = torch.cat([part.flatten() for part in seen]).bincount(minlength=8)
    assert int(load.sum()) == 16 * 9
    assert not done.skipped
    assert torch.equal(gate.e_score_correction_bias, 0.25 * (load.float().mean() - load).sign())
    most = float(load.max() / load.double().mean())
    assert training.balance.figures() == {"router/load": most, "router/load/1": most}


def test_a_step_that_is_left_out_moves_no_bias(tmp_path: Path) -> None:
    training = stepper(tmp_path, "deepseek_v3", BY_BIAS, rate=0.25)
    model: Any = training.wrapped.model
    model.lm_head.weight.register_hook(lambda gradient: gradient * float("nan"))
    assert training.take(torch.arange(16), 1e-2).skipped
    assert not model.model.layers[1].mlp.gate.e_score_correction_bias.any()


def test_a_model_without_experts_is_trained_as_ever(tmp_path: Path) -> None:
    training = stepper(tmp_path, "llama", {"num_hidden_layers": 1}, rate=0.25)
    training.take(torch.arange(16), 1e-2)
    assert not training.balance.has_loss
    assert training.balance.figures() == {}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["qwen3_moe", "deepseek_v3"])
def test_a_worker_without_a_row_sends_no_token_to_an_expert(
    tmp_path: Path, sums: Path, architecture: str
) -> None:
    fields = {"qwen3_moe": {**BY_LOSS, "router_aux_loss_coef": 0.1}, "deepseek_v3": BY_BIAS}
    recipe = {"architecture": architecture, "model": fields[architecture], "batch_size": 1}
    recipe |= {"steps": 2, "checkpoint_every": 0, "validate_every": 0}
    alone = LocalContext(folder=tmp_path / "alone", inputs={"data": sums})
    pretrain(alone, **{**SHORT, **recipe})
    together = train_gang(tmp_path, sums, size=2, **recipe)
    for name in ("router/load", "train/loss"):
        assert together[name] == pytest.approx(alone.series(name)[-1], rel=1e-3)
    assert close(weights(LocalContext(folder=tmp_path)), weights(alone))


@pytest.mark.slow
def test_a_gang_keeps_the_biases_of_one_worker_interrupted_or_not(
    tmp_path: Path, sums: Path
) -> None:
    recipe = {**SHORT, "architecture": "deepseek_v3", "model": BY_BIAS, "router_bias_rate": 0.01}
    recipe |= {"steps": 6, "checkpoint_every": 3}
    alone = LocalContext(folder=tmp_path / "alone", inputs={"data": sums})
    pretrain(alone, **recipe)
    lost = LocalContext(folder=tmp_path / "lost", inputs={"data": sums}, stop_after=4)
    with pytest.raises(InterruptedError):
        pretrain(lost, **recipe)
    resumed = LocalContext(folder=tmp_path / "lost", inputs={"data": sums})
    pretrain(resumed, **recipe)
    assert same_bits(resumed, alone)
    told = train_gang(tmp_path, sums, size=2, **recipe)
    assert 1.0 <= told["router/load"] < 8.0
    together = weights(LocalContext(folder=tmp_path))
    (name,) = (name for name in together if name.endswith("e_score_correction_bias"))
    assert together[name].any()
    # a token whose scores are all but equal may go another way: the loads differ by a few
    assert (together[name] - weights(alone)[name]).abs().max() <= 0.05
