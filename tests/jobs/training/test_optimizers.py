"""Which optimizer moves which weights; torch's own judge what Muon does with matrices."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.pretraining import pretrain
from jobs.training import model as models
from jobs.training.optimizers import optimizer_for, optimizer_of
from jobs.training.parallel.forecast import forecast
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT, SMALL
from tests.jobs.test_pretraining import same_bits
from tests.jobs.training.test_checkpoint import Tokenizer

CPU = torch.device("cpu")
MUON: dict[str, Any] = {**SHORT, "optimizer": {"kind": "muon"}, "weights": "bf16"}


def test_muon_moves_the_matrices_of_layers_and_adamw_all_else_as_torchs_own_do() -> None:
    torch.manual_seed(5)
    model: Any = models.build("llama", SMALL, Tokenizer())
    other: Any = deepcopy(model)
    config = optimizer_of({"kind": "muon"}, beta2=0.98, weight_decay=0.1)
    ours = optimizer_for(model, config, rate=1e-2, device=CPU)
    inside = [p for p in other.model.layers.parameters() if p.ndim == 2]
    vectors = [p for p in other.parameters() if p.ndim == 1]
    theirs = (
        torch.optim.Muon(inside, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [
                {"params": [other.get_input_embeddings().weight], "weight_decay": 0.1},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=1e-2,
            betas=(0.9, 0.98),
            fused=True,
        ),
    )
    for _ in range(3):
        for weight, same in zip(model.parameters(), other.parameters(), strict=True):
            weight.grad = torch.randn_like(weight)
            same.grad = weight.grad.clone()
        ours.step()
        for optimizer in theirs:
            optimizer.step()
        ours.load_state_dict(deepcopy(ours.state_dict()))  # as one that goes on
    for weight, same in zip(model.parameters(), other.parameters(), strict=True):
        assert weight.equal(same)


@pytest.mark.parametrize(
    ("architecture", "fields", "ends"),
    [
        ("gpt_oss", {"num_local_experts": 4, "intermediate_size": 16, "head_dim": 16}, "_bias"),
        ("mamba", {"state_size": 4, "intermediate_size": 64}, "A_log"),
    ],
)
def test_vectors_that_are_stacked_are_no_matrices_to_muon(
    architecture: str, fields: dict[str, Any], ends: str
) -> None:
    own = {"hidden_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2} if ends == "_bias" else {}
    model: Any = models.build(architecture, {**own, **heads, **fields}, Tokenizer())
    optimizer = optimizer_for(model, optimizer_of({"kind": "muon"}), rate=1e-2, device=CPU)
    moved = {id(weight) for weight in optimizer.param_groups[0]["params"]}
    stacked = [p for name, p in model.named_parameters() if name.endswith(ends) and p.ndim == 2]
    assert len(stacked) >= 2
    assert not moved & {id(weight) for weight in stacked}


def test_muon_goes_on_bit_by_bit_with_weights_rounded_to_bf16(tmp_path: Path, sums: Path) -> None:
    whole = LocalContext(folder=tmp_path / "whole", inputs={"data": sums})
    pretrain(whole, **MUON)
    losses = whole.series("train/loss")
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    lost = LocalContext(folder=tmp_path / "lost", inputs={"data": sums}, stop_after=17)
    with pytest.raises(InterruptedError):
        pretrain(lost, **MUON)
    resumed = LocalContext(folder=tmp_path / "lost", inputs={"data": sums})
    pretrain(resumed, **MUON)
    assert resumed.points[0][0] == 11
    assert same_bits(resumed, whole)


@pytest.mark.parametrize(("first", "then"), [("muon", "adamw"), ("adamw", "muon")])
def test_what_another_optimizer_keeps_is_refused(
    tmp_path: Path, sums: Path, first: str, then: str
) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums}, stop_after=3)
    recipe = {**SHORT, "checkpoint_every": 2}
    with pytest.raises(InterruptedError):
        pretrain(ctx, **{**recipe, "optimizer": {"kind": first}})
    said = f"of step 2 was made with optimizer.kind='{first}', this attempt has '{then}'"
    ctx.stop_after = None
    with pytest.raises(ValueError, match=said):
        pretrain(ctx, **{**recipe, "optimizer": {"kind": then}})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"kind": "sgd"}, "optimizer.kind='sgd' is none of 'adamw', 'muon'"),
        ({"momentum": 0.9}, "optimizer 'adamw' has no field 'momentum'; it has beta1, beta2"),
        ({"beta1": 2}, "optimizer.beta1=2: give a number, at least 0, at most 1"),
        ({"epsilon": "1e-8"}, "optimizer.epsilon='1e-8': give a number"),
    ],
)
def test_an_optimizer_that_is_none_is_refused_with_its_value(
    config: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        optimizer_of(config)


def test_fields_of_the_config_go_before_those_of_the_job() -> None:
    config = optimizer_of({"beta2": 0.95}, beta2=0.99, weight_decay=0.2)
    assert (config.kind, config.beta2, config.weight_decay) == ("adamw", 0.95, 0.2)


def test_a_plan_refuses_muon_where_the_model_is_dealt_out() -> None:
    params = {"parallel": {"shard": 2}, "optimizer": {"kind": "muon"}}
    with pytest.raises(ValueError, match=r"optimizer\.kind='muon' moves whole matrices"):
        list(forecast(params, inputs=[], workers=2, memory_gb=80.0, bf16=False))
