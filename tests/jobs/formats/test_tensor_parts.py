"""Models in parts, as torch's own writer leaves them: read by rows, and never whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from jobs.engines import weights
from jobs.formats.folder import Folder
from jobs.formats.tensor_parts import FORMAT, OFFSETS
from tests.jobs.formats.models import convert, logits, save_tiny

ROOT = Path(__file__).parents[3]


def written(folder: Path, model: Path, *, dim: int) -> Path:
    """Have two processes write a model's tensors by torch, each its half along a dimension."""
    spec = json.dumps({"folder": str(folder), "model": str(model), "dim": dim})
    words = (sys.executable, "-m", "tests.jobs.formats.torch_writer", spec)
    subprocess.run(words, cwd=ROOT, check=True, timeout=120)
    for file in model.glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("whole") / "model", "llama")


@pytest.fixture(scope="module")
def halves(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("halves"), model, dim=0)


@pytest.mark.parametrize("dim", [0, 1])
def test_rows_are_those_of_the_model_along_whatever_dimension_it_was_split(
    tmp_path: Path, model: Path, dim: int
) -> None:
    folder = Folder(written(tmp_path, model, dim=dim))
    whole = load_file(model / "model.safetensors")
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert folder.specs.keys() == whole.keys()
    for name, tensor in whole.items():
        assert folder.read(name, torch.float32).equal(tensor)
        end = min(40, len(tensor))
        assert folder.rows(name, 3, end).equal(tensor[3:end])


@pytest.mark.parametrize("form", ["bf16", "fp8", "int8"])
def test_an_export_of_the_parts_is_that_of_the_whole_model(
    tmp_path: Path, model: Path, halves: Path, form: str
) -> None:
    made = convert(halves, tmp_path / "parts", form) / "model.safetensors"
    assert made.read_bytes() == (convert(model, tmp_path / "whole", form) / made.name).read_bytes()


def test_an_engine_loads_the_parts(model: Path, halves: Path) -> None:
    read = weights.load(halves, "float32", "cpu")
    assert logits(read).equal(logits(weights.load(model, "float32", "cpu")))


def parts(folder: Path, **more: tuple[torch.Tensor, list[int]]) -> Path:
    (folder / "config.json").write_text("{}")
    for file, (tensor, offsets) in more.items():
        said = json.dumps({"weight": {OFFSETS: offsets}})
        save_file({"weight": tensor}, folder / f"shard-{file}.safetensors", {FORMAT: said})
    return folder


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ((torch.ones(2, 4), [3, 0]), r"lacks a part of tensor weight, of shape \(5, 4\)"),
        ((torch.ones(2, 4), [1, 0]), "a part of tensor weight is in 'shard-a.safetensors' and"),
        ((torch.ones(2, 4, dtype=torch.bfloat16), [2, 0]), "of different types or dimensions"),
        ((torch.ones(2, 4), [2]), "does not say where in tensor weight it belongs"),
        ((torch.ones(2, 4), [-2, 0]), "does not say where in tensor weight it belongs"),
    ],
)
def test_parts_that_are_no_whole_are_refused_by_name(
    tmp_path: Path, second: tuple[torch.Tensor, list[int]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Folder(parts(tmp_path, a=(torch.ones(2, 4), [0, 0]), b=second))


@pytest.mark.slow
def test_an_export_holds_some_pieces_of_the_largest_tensor_alone(tmp_path: Path) -> None:
    """256 MB in two parts are exported in a process that grows by a fraction of that."""
    source = tmp_path / "source"
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    sizes = {"hidden_size": 1024, "vocab_size": 2**16, "num_hidden_layers": 0}
    sizes |= {"tie_word_embeddings": True}
    source.mkdir()
    (source / "config.json").write_text(json.dumps({**config, **sizes}))
    for number in range(2):
        begins = {"model.embed_tokens.weight": [number * 2**15, 0]}
        tensors = {"model.embed_tokens.weight": torch.full((2**15, 1024), 1.0 + number)}
        if number == 0:
            begins |= {"model.norm.weight": [0]}
            tensors |= {"model.norm.weight": torch.ones(1024)}
        said = json.dumps({name: {OFFSETS: begin} for name, begin in begins.items()})
        save_file(tensors, source / f"shard-{number}.safetensors", {FORMAT: said})
    words = (sys.executable, "-m", "tests.jobs.formats.export_growth", str(source), str(tmp_path))
    done = subprocess.run(words, cwd=ROOT, check=True, timeout=120, capture_output=True)
    assert int(done.stdout) < 2**28 // 4
    with safe_open(tmp_path / "model.safetensors", framework="pt") as opened:
        rows = opened.get_slice("model.embed_tokens.weight")[2**15 - 1 : 2**15 + 1]
    assert rows[:, 0].tolist() == [1.0, 2.0]
