"""Folders that are damaged, or made to do harm, are refused in one line."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.engines import weights
from jobs.formats import safety
from jobs.formats.folder import Folder
from tests.jobs.formats.models import convert, save_tiny

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("sound")
    return convert(save_tiny(at / "trained", "llama"), at / "made", "fp8_ue8m0")


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS)

    return damage


def config(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        said = json.loads((folder / "config.json").read_text())
        said["quantization_config"].update(changes)
        (folder / "config.json").write_text(json.dumps(said))

    return damage


def index(**names: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        found = dict.fromkeys(load_file(folder / WEIGHTS), "a.safetensors")
        (folder / WEIGHTS).rename(folder / "a.safetensors")
        said = {"weight_map": {**found, **names}}
        (folder / INDEX).write_text(json.dumps(said))

    return damage


def header(text: bytes, length: int | None = None) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        size = len(text) if length is None else length
        (folder / WEIGHTS).write_bytes(size.to_bytes(8, "little") + text)

    return damage


def only_a_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(folder / "went off")))


def a_pickle_in_disguise(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(pickle.dumps(Bomb(folder / "went off")))


class Bomb:
    """What a pickle does when it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def twice(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / "b.safetensors")
    index(**{UP: "b.safetensors"})(folder)


def stray(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / "more.safetensors")


def both(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / "kept")
    index()(folder)
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")
    said = json.loads((folder / INDEX).read_text())["weight_map"]
    (folder / INDEX).write_text(json.dumps({"weight_map": {**said, UP: "b.safetensors"}}))
    (folder / "kept").rename(folder / WEIGHTS)


def stray_beside_an_index(folder: Path) -> None:
    index()(folder)
    stray_name = folder / "model-00002-of-00002.safetensors"
    shutil.copy(folder / "a.safetensors", stray_name)


def test_what_mistral_publishes_beside_its_models_is_passed_over(tmp_path: Path) -> None:
    whole = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(2)}, whole)
    shutil.copy(whole, tmp_path / "consolidated.safetensors")
    assert safety.files_of(tmp_path)[0] == [whole]


def set_scale(value: float) -> Callable[[Path], None]:
    return tensors(lambda t: t[f"{UP}_scale_inv"].fill_(value))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (
            only_a_pickle,
            "no model.safetensors .*'pytorch_model.bin' may be a pickle, which is never",
        ),
        (a_pickle_in_disguise, "is no sound"),
        (
            index(more="../elsewhere.safetensors"),
            r"more in '\.\./elsewhere\.safetensors', which is no",
        ),
        (index(more="/etc/passwd"), "more in '/etc/passwd', which is no safetensors file of this"),
        (index(more="pytorch_model.bin"), "which is no safetensors file of this folder"),
        (index(more="gone.safetensors"), "gone.safetensors' is missing, or no file"),
        (index(more="a.safetensors"), f"tensor more is not in 'a.safetensors', as {INDEX} says"),
        (stray, "more.safetensors' is a file of weights that model.safetensors does not name"),
        (stray_beside_an_index, f"00002.safetensors' is a file of weights that {INDEX} does not"),
        (both, "has both model.safetensors and model.safetensors.index.json; remove the one"),
        (twice, "is in 'a.safetensors' and 'b.safetensors'"),
        (header(b"{}", 1 << 60), "is no sound safetensors file: .*(?i:header)"),
        (header(b"{" * 90_000), "model.safetensors' is no sound safetensors file"),
        (
            header(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
            "is no sound safetensors file",
        ),
        (
            header(b'{"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}  '),
            "is no sound safetensors file|has the type 'F4'",
        ),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "config.json' is no JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json' holds no JSON object"),
        (lambda f: (f / "config.json").unlink(), "config.json' can't be read: No such file"),
        (set_scale(3.0), f"tensor {UP}_scale_inv has scales that are no powers of two, though"),
        (set_scale(1 + 2.0**-23), f"tensor {UP}_scale_inv has scales that are no powers of two"),
        (set_scale(0.0), f"tensor {UP}_scale_inv has scales that are not positive"),
        (set_scale(float("inf")), "_scale_inv has scales that are not positive"),
        (
            tensors(lambda t: t.pop(f"{UP}_scale_inv")),
            f"tensor {UP} is stored as float8_e4m3fn, and has no scale {UP}_scale_inv",
        ),
        (
            tensors(lambda t: t.update({f"{UP}_scale_inv": torch.ones(3, 1)})),
            rf"tensor {UP} of shape \(256, 64\) has scales of shape \(3, 1\) in float32, not",
        ),
        (
            tensors(lambda t: t.update({UP: t[UP].flatten()})),
            f"tensor {UP} has scales and shape",
        ),
        (config(quant_method="gptq"), "quantization_config of quant_method 'gptq' is of no kind"),
        (config(weight_block_size=[0, 128]), r"weight_block_size is \[0, 128\], not rows and"),
        (config(weight_block_size=None), "weight_block_size is None"),
        (config(fmt="e5m2"), "fmt is 'e5m2'; only 'e4m3' is read here"),
        (
            config(quant_method="compressed-tensors", format="pack-quantized"),
            "is of no kind that is read here",
        ),
        (config(quant_method="compressed-tensors", format="int-quantized"), "is of no kind"),
    ],
)
def test_it_is_refused_before_any_weight_is_used(
    sound: Path, tmp_path: Path, damage: Callable[[Path], object], told: str
) -> None:
    folder = shutil.copytree(sound, tmp_path / "bad")
    damage(folder)
    with pytest.raises(ValueError, match=told) as refused:
        Folder(folder)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match=told):
        weights.load(folder, "auto", "cpu")
    assert not (folder / "went off").exists()


def test_codes_that_no_config_explains_are_refused(sound: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sound, tmp_path / "bad")
    said = json.loads((folder / "config.json").read_text())
    del said["quantization_config"]
    (folder / "config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"is stored as float8_e4m3fn, and has no scale$"):
        Folder(folder)


def test_a_code_that_is_no_number_is_named(sound: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sound, tmp_path / "bad")
    tensors(lambda t: t[UP].view(torch.uint8)[0].fill_(0xFF))(folder)
    with pytest.raises(ValueError, match=rf"tensor {UP} .* not finite"):
        weights.load(folder, "auto", "cpu")


def seal(folder: Path, *names: str) -> None:
    """Write the manifest that the artifact store leaves."""
    files = {
        name: {
            "size": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in names
    }
    (folder / "manifest.json").write_text(json.dumps({"files": files, "meta": {}, "seal": "x"}))


def test_a_file_that_is_not_as_its_manifest_says_is_refused(sound: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sound, tmp_path / "sealed")
    seal(folder, WEIGHTS, "config.json")
    Folder(folder)
    bytes_of = bytearray((folder / WEIGHTS).read_bytes())
    bytes_of[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes_of)
    with pytest.raises(ValueError, match=r"model.safetensors' is not as its manifest says"):
        Folder(folder)
    seal(folder, "config.json")
    with pytest.raises(ValueError, match=r"model.safetensors' is not as its manifest says"):
        Folder(folder)
    (folder / "manifest.json").write_text(json.dumps({"files": ["what", "else"]}))
    Folder(folder)


def test_json_without_end_is_not_read(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safety, "LONGEST_JSON", 10)
    with pytest.raises(ValueError, match="is longer than 10 bytes"):
        Folder(sound)


def test_scales_of_a_foreign_checkpoint_may_be_of_other_types(sound: Path, tmp_path: Path) -> None:
    """Later releases than DeepSeek-V3.1 store one byte for a scale."""
    folder = shutil.copytree(sound, tmp_path / "bytes")
    tensors(
        lambda t: t.update(
            {n: v.to(torch.float8_e8m0fnu) for n, v in t.items() if n.endswith("_scale_inv")}
        )
    )(folder)
    expected = weights.load(sound, "auto", "cpu").state_dict()
    for name, weight in weights.load(folder, "auto", "cpu").state_dict().items():
        assert torch.equal(weight, expected[name])


def test_a_bias_that_chooses_experts_and_is_no_number_is_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "deepseek_v3")
    found = load_file(folder / WEIGHTS)
    name = next(name for name in found if name.endswith("e_score_correction_bias"))
    found[name][1] = float("nan")
    save_file(found, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"tensor {name} of .* has values that are not finite"):
        weights.load(folder, "auto", "cpu")
