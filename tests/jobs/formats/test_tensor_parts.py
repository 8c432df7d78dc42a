"""Models in parts, as torch's own writer leaves them: read by rows, and never whole."""

from __future__ import annotations

import json
import shutil
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
from tests.jobs.formats.test_hostile import seal

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


@pytest.mark.parametrize(
    ("sealed", "told"),
    [
        (
            (),
            "the model has 3,072 of the 6,144 values that its config gives tensor lm_head.weight",
        ),
        (("*.json", "*.safetensors"), "00001.safetensors' is missing, which its manifest names"),
    ],
    ids=["no manifest", "manifest"],
)
def test_a_last_part_that_is_lost_is_noticed(
    tmp_path: Path, halves: Path, sealed: tuple[str, ...], told: str
) -> None:
    left = shutil.copytree(halves, tmp_path / "left")
    if sealed:
        seal(left, *(file.name for kind in sealed for file in left.glob(kind)))
    convert(left, tmp_path / "whole", "bf16")
    max(left.glob("*.safetensors")).unlink()
    with pytest.raises(ValueError, match=told):
        convert(left, tmp_path / "truncated", "bf16")


def test_a_tensor_of_the_lost_part_alone_is_noticed(tmp_path: Path, model: Path) -> None:
    for file in model.glob("*.json"):
        shutil.copy(file, tmp_path)
    tensors = load_file(model / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    del tensors[name]
    begins = {other: {OFFSETS: [0] * tensor.ndim} for other, tensor in tensors.items()}
    save_file(tensors, tmp_path / "shard-1.safetensors", {FORMAT: json.dumps(begins)})
    with pytest.raises(ValueError, match=f"has 0 of the 16,384 values that .* {name}; fetch"):
        convert(tmp_path, tmp_path / "made", "bf16")


def test_weights_beside_the_parts_are_refused(tmp_path: Path) -> None:
    folder = parts(tmp_path, a=(torch.ones(2, 4), [0, 0]))
    stray = "model-00001-of-00002.safetensors"
    save_file({"weight": torch.ones(2, 4)}, folder / stray)
    with pytest.raises(ValueError, match=rf"{stray}' is a file of weights that shard-\*"):
        Folder(folder)


@pytest.mark.parametrize(
    "said",
    [
        '{"weight": {"saved_offsets": [Infinity, 0]}}',
        '{"weight": {"saved_offsets": [1.7, 0]}}',
        '{"weight": {"saved_offsets": [true, 0]}}',
        '{"weight": {"saved_offsets": "00"}}',
        '{"weight": {"saved_offsets": null}}',
        '{"weight": {}}',
        '{"weight": [0, 0]}',
        "[[0, 0]]",
        "{",
        "[" * 100_000,
    ],
)
def test_what_says_badly_where_a_part_begins_is_refused(tmp_path: Path, said: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"weight": torch.ones(2, 4)}, tmp_path / "shard-1.safetensors", {FORMAT: said})
    with pytest.raises(ValueError, match=f"has a {FORMAT} that can't be read: ") as refused:
        Folder(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_part_without_values_is_in_nobodys_way(tmp_path: Path) -> None:
    whole = torch.arange(8.0).reshape(2, 4)
    folder = Folder(parts(tmp_path, a=(whole, [0, 0]), b=(torch.ones(0, 4), [1, 0])))
    assert folder.read("weight", torch.float32).equal(whole)


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
