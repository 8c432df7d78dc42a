"""Whatever weights are one tensor, by whatever name: what is saved is read back, and says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from jobs.engines.weights import load
from jobs.pretraining import pretrain
from jobs.training import checkpoint
from jobs.training import model as models
from jobs.training.checkpoint import Snapshots, State
from jobs.training.optimizers import OptimizerConfig, optimizer_for
from jobs.training.parallel.restoring import restore
from jobs.training.parallel.stored_chunks import stored_chunks
from jobs.training.process_group import ProcessGroup
from orchestrator.job import Checkpoint
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT, SMALL

CPU = torch.device("cpu")
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
GPT = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
OPT = {"hidden_size": 32, "ffn_dim": 64, "num_attention_heads": 2, "word_embed_proj_dim": 32}
TYPES: Mapping[str, Mapping[str, object]] = {
    "llama": SMALL,
    "qwen3": {**SMALL, "head_dim": 16},
    "gemma2": {**SMALL, "head_dim": 16},
    "qwen3_moe": {**SMALL, **EXPERTS, "num_experts": 4},
    "gpt2": GPT,
    "opt": {**OPT, "num_hidden_layers": 1, "max_position_embeddings": 64},
    "bloom": {"hidden_size": 32, "n_layer": 1, "n_head": 2},
    "gpt_neox": {key: value for key, value in SMALL.items() if "key_value" not in key},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
}
TIES = ("tied", "untied", "untied head under a config that ties")


class Tokenizer:
    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def __len__(self) -> int:
        return 40


def head_of(model: Any) -> torch.Tensor:
    weight: torch.Tensor = model.get_output_embeddings().weight
    return weight


def make(architecture: str, ties: str, folder: Path) -> Any:
    """Return a fresh model; the one that is tied in its config alone comes out of a folder."""
    torch.manual_seed(3)
    fields = {**TYPES[architecture], "tie_word_embeddings": ties != "untied"}
    model: Any = models.build(architecture, fields, Tokenizer())
    if ties != TIES[2]:
        return model
    name = next(n for n, p in named(model) if p is head_of(model) and n not in own(model))
    models.save(model, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = torch.randn_like(head_of(model))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return load(folder, torch.float32, "cpu")


def named(model: Any) -> list[tuple[str, torch.Tensor]]:
    return list(model.named_parameters(remove_duplicate=False))


def own(model: Any) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def optimizer_of(model: Any) -> torch.optim.Optimizer:
    return optimizer_for(model, OptimizerConfig(beta2=0.98), rate=1e-2, device=CPU)


def train(model: Any, optimizer: torch.optim.Optimizer) -> None:
    torch.manual_seed(5)
    tokens = torch.arange(3, 33).reshape(3, 10)
    torch.autograd.backward(model(input_ids=tokens, labels=tokens).loss)
    optimizer.step()
    optimizer.zero_grad()


def save(folder: Path, model: Any, optimizer: torch.optim.Optimizer, size: int) -> Checkpoint:
    shards = tuple(folder / f"rank-{rank}" for rank in range(size))
    for rank, shard in enumerate(shards):
        shard.mkdir(parents=True)
        Snapshots(model, optimizer, rank=rank, size=size).take(State(step=2))(shard)
    return Checkpoint(step=2, path=shards[0], shards=shards)


def same(one: Any, other: Any) -> bool:
    pairs = zip(named(one), named(other), strict=True)
    return all(n == m and torch.equal(a, b) for (n, a), (m, b) in pairs)


@settings(max_examples=30)
@given(
    architecture=st.sampled_from(sorted(TYPES)),
    ties=st.sampled_from(TIES),
    size=st.integers(1, 3),
    steps=st.integers(0, 2),
)
def test_a_model_of_any_ties_goes_on_bit_by_bit_and_is_written_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, architecture: str, ties: str, size: int, steps: int
) -> None:
    folder = tmp_path_factory.mktemp("ties")
    model = make(architecture, ties, folder / "given")
    optimizer = optimizer_of(model)
    for _ in range(steps):
        train(model, optimizer)
    found = save(folder / "saved", model, optimizer, size)
    alone = ProcessGroup(LocalContext(folder=folder))
    read: Any = checkpoint.shape(found, stored_chunks(found, alone))
    again = optimizer_of(read.train())
    restore(found, read, again, alone)
    assert own(read) == own(model)
    train(model.train(), optimizer)
    train(read, again)
    assert same(read, model)
    tied = head_of(read) is read.get_input_embeddings().weight
    assert read.config.tie_word_embeddings == tied == (ties == "tied")
    for one, name in ((model, "one"), (read, "other")):
        models.save(one, folder / name)  # names may be those of the folder that it came from
        assert same(load(folder / name, torch.float32, "cpu"), model)
    one, other = (folder / name / "config.json" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_a_checkpoint_whose_config_ties_what_it_holds_apart_is_read(tmp_path: Path) -> None:
    model = make("llama", TIES[2], tmp_path / "given")
    optimizer = optimizer_of(model)
    train(model, optimizer)
    found = save(tmp_path / "saved", model, optimizer, 2)
    config = found.path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tie_word_embeddings": True}))
    alone = ProcessGroup(LocalContext(folder=tmp_path))
    read: Any = checkpoint.shape(found, stored_chunks(found, alone))
    restore(found, read, optimizer_of(read), alone)
    assert same(read, model)
    assert not read.config.tie_word_embeddings
    models.save(read, tmp_path / "out")
    assert same(load(tmp_path / "out", torch.float32, "cpu"), model)


def test_training_from_a_folder_with_a_head_of_its_own_goes_on_after_a_loss(
    tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    """The config of the folder says that the head is the embeddings, and it is another."""
    given = tmp_path / "given"
    models.save(load(undisturbed.output, torch.float32, "cpu"), given)
    tensors = load_file(given / "model.safetensors")
    embeddings = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = embeddings + torch.linspace(0, 1, embeddings.shape[1])
    save_file(tensors, given / "model.safetensors", {"format": "pt"})
    inputs, outputs = {"data": sums, "model": given}, []
    for name, stops in (("undisturbed", (None,)), ("disturbed", (13, None))):
        for stop in stops:
            ctx = LocalContext(folder=tmp_path / name, inputs=inputs, stop_after=stop)
            try:
                pretrain(ctx, **SHORT)
            except InterruptedError:
                continue
        outputs.append((ctx.output / "model.safetensors").read_bytes())
    assert outputs[0] == outputs[1]
    assert json.loads((ctx.output / "config.json").read_text())["tie_word_embeddings"] is False
    read = load_file(ctx.output / "model.safetensors")
    assert not torch.equal(read["lm_head.weight"], read["model.embed_tokens.weight"])
