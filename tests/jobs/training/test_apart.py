"""Documents of a row do not see each other: each alone, by transformers, is the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from jobs.data.dataset import IGNORE, RowBatch
from jobs.pretraining import pretrain
from jobs.training.loss import TokenLoss, keeps_apart, nll
from tests.jobs.data.tokens.corpora import RECIPE, prepared, texts, write_records, write_tokenizer
from tests.jobs.local_context import LocalContext
from tests.jobs.training.test_loss import build

CPU = torch.device("cpu")
DOCUMENTS = ([5, 9, 200, 31, 7], [8, 300, 12], [77, 4, 4, 91, 6, 2])
UNABLE: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 1, "n_head": 2},  # takes no positions
    "mamba": {"num_hidden_layers": 1, "state_size": 4},  # hands its state on
}


def in_a_row() -> RowBatch:
    tokens = torch.tensor([[token for document in DOCUMENTS for token in document]])
    positions = torch.cat([torch.arange(len(document)) for document in DOCUMENTS])[None]
    labels = torch.where(positions == 0, IGNORE, tokens)
    return RowBatch(tokens, labels, positions)


def alone(model: Any) -> float:
    """Return the summed loss of the documents, each in a row of its own."""
    rows = (torch.tensor([document]) for document in DOCUMENTS)
    losses = [model(input_ids=row, labels=row).loss * (row.shape[1] - 1) for row in rows]
    return float(sum(losses))


@pytest.mark.parametrize("most", [2**10, 2**26])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
@torch.no_grad()
def test_documents_of_a_row_have_the_loss_that_each_has_alone(
    architecture: str, most: int
) -> None:
    model = build(architecture).eval()
    assert keeps_apart(model, CPU)
    loss = TokenLoss(model, most=most)
    assert nll(loss, in_a_row(), device=CPU).item() == pytest.approx(alone(model), rel=1e-5)
    joined = RowBatch(in_a_row().tokens, in_a_row().labels)
    assert nll(loss, joined, device=CPU).item() != pytest.approx(alone(model), rel=1e-3)


@pytest.mark.parametrize("architecture", UNABLE)
def test_a_model_that_lets_documents_see_each_other_is_known(architecture: str) -> None:
    fields = {"vocab_size": 320, "hidden_size": 16, **UNABLE[architecture]}
    config = AutoConfig.for_model(architecture, **fields)
    assert not keeps_apart(AutoModelForCausalLM.from_config(config).train(), CPU)


def test_such_a_model_is_trained_where_documents_are_joined(tmp_path: Path) -> None:
    source = write_records(tmp_path / "a.jsonl", [{"text": text} for text in texts(60)])
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    data = prepared(tmp_path / "data", tokenizer, source)
    recipe = {**RECIPE, "steps": 2, "architecture": "bloom"}
    recipe["model"] = {"hidden_size": 16, **UNABLE["bloom"]}
    with pytest.raises(ValueError, match="a bloom lets documents of a row see each other"):
        pretrain(LocalContext(folder=tmp_path / "apart", inputs={"data": data}), **recipe)
    recipe["rows"] = {**RECIPE["rows"], "documents": "joined"}
    ctx = LocalContext(folder=tmp_path / "joined", inputs={"data": data})
    pretrain(ctx, **recipe)
    assert len(ctx.series("train/loss")) == 2
