"""What a rank will hold is known before it holds it, and what can't be is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.training import model as models
from jobs.training.parallel.degrees import MeshDegrees, parallel_of
from jobs.training.parallel.forecast import MemoryFactors, forecast, memory_of
from jobs.training.parallel.sharding import dealt_along

SEVEN_BILLION = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "tie_word_embeddings": False,
}
RECIPE = MemoryFactors(
    tokens=1024, bf16=True, master_weights=False, activation_checkpointing=False
)


def _forecast(
    workers: int, memory_gb: float = 80, *, inputs: tuple[str, ...] = ("data",), **params: Any
) -> str:
    fields: dict[str, Any] = {"architecture": "llama", "model": SEVEN_BILLION, **params}
    lines = forecast(fields, inputs=inputs, workers=workers, memory_gb=memory_gb, bf16=True)
    return "\n".join(lines)


def test_seven_billion_parameters_fit_64_chips_and_not_one() -> None:
    line = _forecast(64, parallel={"shard": 64})
    assert line.startswith("6.74B parameters, 64 workers: ")
    assert "(1.7 GB of weights, gradients and optimizer state" in line
    assert "80.9 GB a save; to begin, 0.5 GB on the host of the first worker; assumed: " in line
    with pytest.raises(
        ValueError, match=r"needs .*, a chip has 80 GB; shard over more workers \(107\.8 GB of w"
    ):
        _forecast(1, parallel={"shard": -1})


def test_a_model_that_each_worker_holds_all_of_is_refused_where_a_chip_is_too_small() -> None:
    said = r"a chip has 80 GB; each worker holds all of the model: set parallel.shard \(107\.8 GB"
    for workers in (1, 64):
        with pytest.raises(ValueError, match=said):
            _forecast(workers)
    line = _forecast(64, memory_gb=141, rows={"sequence": 128})
    assert line.startswith("6.74B parameters, 64 workers: ")
    assert "(107.8 GB of weights, gradients and optimizer state, 0.0 GB of gathered" in line
    assert "27.0 GB on the host of each worker; assumed: a vocabulary" in line


def test_activations_alone_refuse_no_model_that_each_worker_holds_all_of() -> None:
    """Where memory runs out its micro-batches become smaller."""
    line = _forecast(1, memory_gb=141, batch_size=256, rows={"sequence": 4096})
    assert "on the host of each worker; that may run out: raise accumulate, or lower" in line


def test_muon_keeps_one_moment_of_a_matrix_in_a_layer() -> None:
    state = [
        _forecast(8, memory_gb=141, optimizer={"kind": kind}).partition("(")[2].split()[0]
        for kind in ("adamw", "muon")
    ]
    assert state == ["107.8", "81.9"]


def test_deepseek_v3_fits_2048_chips_where_its_experts_are_split() -> None:
    recipe: dict[str, Any] = {"architecture": "deepseek_v3", "model": {}, "batch_size": 256}
    recipe |= {"rows": {"sequence": 4096}, "activation_checkpointing": True}
    line = _forecast(2048, parallel={"shard": 256, "tensor": 8}, **recipe)
    assert line.startswith("671.03B parameters, 2,048 workers: ")
    with pytest.raises(ValueError, match=r"80 GB; split its layers by parallel\.tensor, "):
        _forecast(2048, parallel={"shard": 2048}, **recipe)


def test_what_is_assumed_is_said() -> None:
    mesh = {"parallel": {"shard": 64}}
    vocabulary, width = "a vocabulary of 32,000", "rows of 1,024 tokens"
    assert _forecast(64, **mesh).endswith(f"; assumed: {vocabulary} and {width}")
    assert _forecast(64, **mesh, rows={"sequence": 8}).endswith(f"; assumed: {vocabulary}")
    model = {**SEVEN_BILLION, "vocab_size": 8}
    assert _forecast(64, **mesh, model=model).endswith(f"; assumed: {width}")
    assert "assumed" not in _forecast(64, **mesh, model=model, rows={"sequence": 8})
    with pytest.raises(ValueError, match=rf"; assumed: {vocabulary} and {width}"):
        _forecast(1, parallel={"shard": -1})


def test_rows_that_can_not_be_made_are_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match=r"rows\.sequence='4k': give a whole number"):
        _forecast(64, parallel={"shard": 64}, rows={"sequence": "4k"})


def test_what_is_kept_for_the_backward_pass_counts_and_can_be_lessened() -> None:
    rows = {"parallel": {"shard": 8}, "batch_size": 256, "rows": {"sequence": 4096}}
    with pytest.raises(ValueError, match="raise accumulate, or lower micro_batch_tokens, or set"):
        _forecast(8, **rows)
    assert "8 workers" in _forecast(8, **rows, accumulate=32)
    assert _forecast(8, **rows, micro_batch_tokens=8191) == _forecast(8, **rows, accumulate=32)
    assert _forecast(8, **rows, micro_batch_tokens=1) == _forecast(8, **rows, accumulate=32)
    assert "8 workers" in _forecast(8, **rows, activation_checkpointing=True)


def test_each_rank_holds_its_part_of_16_bytes_a_parameter() -> None:
    model = models.outline("llama", SEVEN_BILLION)
    whole = models.parameters(model)
    for shard in (1, 8, 64):
        memory = memory_of(model, MeshDegrees(shard=shard), RECIPE)
        assert memory.state == 16 * whole / shard
        assert memory.checkpoint == 12 * whole


def test_layers_that_are_split_are_gathered_by_their_parts() -> None:
    model = models.outline("llama", SEVEN_BILLION)
    whole, split = (
        memory_of(model, MeshDegrees(shard=8, tensor=tensor), RECIPE) for tensor in (1, 8)
    )
    assert split.gathered < 0.6 * whole.gathered
    assert split.state < 0.2 * whole.state
    assert split.checkpoint == whole.checkpoint


def test_each_rank_holds_its_part_of_its_experts() -> None:
    fields = {"num_experts": 8, "num_experts_per_tok": 2, "num_hidden_layers": 2}
    model = models.outline("qwen3_moe", fields)
    experts = sum(w.numel() for name, w in model.named_parameters() if ".experts." in name)
    others = models.parameters(model) - experts
    sharded = memory_of(model, MeshDegrees(shard=8), RECIPE)
    for shard, expert in ((1, 8), (2, 4), (8, 2)):
        memory = memory_of(model, MeshDegrees(shard=shard, expert=expert), RECIPE)
        assert memory.state == 16 * (experts + others) / (shard * expert)
        assert memory.gathered < sharded.gathered
        assert memory.activations > sharded.activations
        assert memory.checkpoint == sharded.checkpoint


def test_deepseek_v3_fits_2048_chips_where_its_experts_are_dealt_out() -> None:
    recipe: dict[str, Any] = {"architecture": "deepseek_v3", "model": {}, "batch_size": 2048}
    recipe |= {"rows": {"sequence": 4096}, "activation_checkpointing": True}
    line = _forecast(2048, parallel={"shard": 32, "expert": 64}, **recipe)
    assert line.startswith("671.03B parameters, 2,048 workers: ")


@pytest.mark.parametrize(
    ("architecture", "fields", "said"),
    [
        ("llama", {}, "parallel.expert=3: a llama has no plan for it"),
        ("qwen3_moe", {"num_experts": 4}, "a qwen3_moe has 4 experts, which does not divide by"),
        ("gemma4_text", {}, "a gemma4_text has a plan with 'colwise', which is not done here"),
    ],
)
def test_experts_that_can_t_be_dealt_out_are_refused(
    architecture: str, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        _forecast(3, architecture=architecture, model=fields, parallel={"expert": 3})


def test_experts_that_are_dealt_out_are_not_compiled() -> None:
    with pytest.raises(ValueError, match=r"compile=.inductor. with parallel\.expert=2 is"):
        _forecast(2, architecture="qwen3_moe", parallel={"expert": 2}, compile="inductor")


@pytest.mark.parametrize(
    ("architecture", "fields", "said"),
    [
        ("gpt2", {}, "parallel.tensor=2: a gpt2 has no plan for it"),
        ("llama", {"num_key_value_heads": 3}, "has num_key_value_heads 3, which does not divide"),
    ],
)
def test_a_model_that_can_t_be_split_is_refused(
    architecture: str, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        _forecast(2, architecture=architecture, model=fields, parallel={"tensor": 2})


def test_experts_are_dealt_out_along_a_dimension_that_all_have_a_part_of() -> None:
    assert dealt_along((256, 4096, 7168), 64) == 0
    assert dealt_along((256, 4096, 7168), 2048) == 1
    assert dealt_along((7,), 8) == 0
    assert dealt_along((), 8) == 0


def test_a_model_that_comes_from_another_stage_is_not_known_yet() -> None:
    assert "comes from a stage before it" in _forecast(2, inputs=("model",), parallel={"shard": 2})


@pytest.mark.parametrize(
    ("parallel", "said"),
    [
        ({"shard": 3}, "parallel: shard 3 is 3, not the 4 workers of the stage"),
        ({"replicate": 2, "shard": 4}, "replicate 2 x shard 4 is 8, not the 4 workers"),
        ({"replicate": 3, "shard": -1}, "replicate 3 is 3, not the 4 workers"),
        ({"shard": 0}, "parallel.shard=0: give a whole number, at least 1, or -1"),
        ({"replicate": -1}, "parallel.replicate=-1: give a whole number, at least 1"),
        ({"shard": True}, "parallel.shard=True"),
        ({"shard": "4"}, "parallel.shard='4'"),
        ({"sharding": 4}, "parallel has no degree 'sharding'; it has replicate, shard"),
        ({"shard": 2, "pipeline": 2}, "parallel.pipeline=2 is not done here: .*or Megatron"),
        ({"tensor": 2, "expert": 2}, "parallel.expert=2 with parallel.tensor=2 is not done here"),
    ],
)
def test_degrees_that_are_none_are_refused_with_their_value(
    parallel: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        parallel_of(parallel, 4)


def test_what_is_left_of_the_workers_is_sharded_over() -> None:
    assert parallel_of({"replicate": 2, "shard": -1}, 8) == MeshDegrees(replicate=2, shard=4)
