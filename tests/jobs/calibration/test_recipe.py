"""What a recipe asks for, and what an export does with what llm-compressor wrote."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from jobs.calibration import recipe
from jobs.data.dataset import read_facts, read_rows
from jobs.engines import weights
from jobs.export import export
from jobs.formats.choice import choose
from jobs.formats.conversion import Conversion
from jobs.formats.folder import Folder
from jobs.formats.records import form_of
from jobs.formats.schemes import SCHEMES
from jobs.formats.tensor_parts import FORMAT, OFFSETS
from jobs.parity import reference
from orchestrator.job import ParityError
from orchestrator.supervisor.record import wait
from tests.jobs.formats import judges
from tests.jobs.formats.models import convert, save_tiny
from tests.jobs.local_context import LocalContext
from tests.jobs.parity.conftest import LIMITS, check

NAMED = os.environ.get("ORCHESTRATOR_LLMCOMPRESSOR_PYTHON", "")  # noqa: TID251 - where it is
PYTHON = Path(NAMED or Path(__file__).parents[3] / ".venv-llmcompressor/bin/python")
FP8_BLOCK = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {"group_0": judges.FP8_BLOCK},
}
there = pytest.mark.skipif(not PYTHON.exists(), reason=f"there is no {PYTHON}: make llmcompressor")


def context(folder: Path, model: Path, data: Path | None = None, **more: Any) -> LocalContext:
    inputs = {"model": model} if data is None else {"model": model, "data": data}
    return LocalContext(folder=folder, inputs=inputs, **more)


@pytest.mark.parametrize(
    ("said", "form", "more", "words"),
    [
        ({"python": "p"}, "bf16", {}, "a recipe makes int8 or fp8, not format='bf16'"),
        ({"python": "p"}, "int8", {"data": None}, "give the stage an input `data`"),
        ({"python": "p"}, "int8", {"world_size": 2}, "in one worker, not in 2; set needs.workers"),
        ({"rows": 4}, "int8", {}, "recipe.python='' is no Python; name that of an environment"),
        ({"python": "p", "rows": 0}, "fp8", {}, "recipe.rows=0 is no number of rows"),
        ({"python": "p", "row": 4}, "fp8", {}, "recipe.row is none of python, rows, modifiers"),
        ({"python": "p", "modifiers": {}}, "int8", {}, "recipe.modifiers={} does not name"),
        ({"python": "p", "modifiers": {"GPTQModifier": 3}}, "int8", {}, "does not name modifiers"),
    ],
)
def test_a_recipe_that_can_not_be_followed_is_refused_before_anything_runs(
    tmp_path: Path, said: dict[str, Any], form: str, more: dict[str, Any], words: str
) -> None:
    ctx = context(tmp_path, tmp_path, **{"data": tmp_path, **more})
    with pytest.raises(ValueError, match=words):
        recipe.recipe_of(said, form, ctx)


def test_an_environment_without_llm_compressor_is_told_in_its_own_words(
    tmp_path: Path, undisturbed: LocalContext, sums: Path
) -> None:
    ctx = context(tmp_path, undisturbed.output, sums)
    with pytest.raises(ValueError, match=r"ended with 1: .*No module named 'llmcompressor'"):
        export(ctx, format="int8", recipe={"python": sys.executable})
    assert "llmcompressor" in ctx.reports["llmcompressor.txt"]
    assert not list(ctx.output.iterdir())
    with pytest.raises(ValueError, match=r"recipe.python='/no/python' can't be run: No such file"):
        export(ctx, format="int8", recipe={"python": "/no/python"})


STAND_IN = {  # what `compress.py` imports, without what it computes; `oneshot` takes its time
    "__init__.py": "import time\n\ndef oneshot(**_):\n    time.sleep({seconds})\n",
    "modifiers/__init__.py": "",
    "modifiers/factory.py": (
        "class ModifierFactory:\n"
        "    load_from_package = staticmethod(lambda _: {{'GPTQModifier': Modifier}})\n\n"
        "class Modifier:\n    model_fields = ()\n"
    ),
}


def python_with_stand_in(folder: Path, seconds: float) -> Path:
    """Return what runs a script beside a package that has the names of llm-compressor."""
    for name, text in STAND_IN.items():
        file = folder / "llmcompressor" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.format(seconds=seconds))
    begin = f"import runpy, sys; sys.path.insert(0, {str(folder)!r}); runpy.run_path(sys.argv[2], "
    python = folder / "python"
    python.write_text(f"""#!/bin/sh\nexec {sys.executable} -c "{begin}None, '__main__')" "$@"\n""")
    python.chmod(0o755)
    return python


def test_a_calibration_runs_to_its_end_after_it_was_given_its_order(
    tmp_path: Path, undisturbed: LocalContext, sums: Path
) -> None:
    python = python_with_stand_in(tmp_path / "env", seconds=2.0)
    ctx = context(tmp_path, undisturbed.output, sums)
    with pytest.raises(ValueError, match="llm-compressor did not quantize"):  # it wrote the model
        export(ctx, format="int8", recipe={"python": str(python), "rows": 2})


def test_a_calibration_ends_with_the_worker_that_asked_for_it(
    tmp_path: Path, undisturbed: LocalContext, sums: Path
) -> None:
    python = python_with_stand_in(tmp_path / "env", seconds=300.0)
    pid = tmp_path / "pid"
    python.write_text(python.read_text().replace("exec", f"echo $$ > {pid}; exec"))
    words = (
        "import sys; from pathlib import Path; from jobs.calibration import recipe; "
        "from tests.jobs.calibration.test_recipe import context; "
        "folder, model, data, python = map(Path, sys.argv[1:]); "
        "from jobs.export import export; "
        "export(context(folder, model, data), format='int8', recipe={'python': str(python)})"
    )
    paths = [str(path) for path in (tmp_path, undisturbed.output, sums, python)]
    with subprocess.Popen([sys.executable, "-c", words, *paths]) as worker:
        try:
            assert wait(pid.exists, 60.0)
        finally:
            worker.kill()
    script = int(pid.read_text())
    assert wait(lambda: not Path(f"/proc/{script}").exists(), 30.0)


def test_a_model_that_is_quantized_already_is_not_calibrated(tmp_path: Path, sums: Path) -> None:
    source = convert(save_tiny(tmp_path / "a", "llama"), tmp_path / "b", "int8")
    with pytest.raises(ValueError, match=r"b' is in int8 already; a recipe wants bf16 or fp32"):
        export(context(tmp_path, source, sums), format="int8", recipe={"python": "p"})


def test_a_model_in_parts_is_not_calibrated(tmp_path: Path, sums: Path) -> None:
    source = save_tiny(tmp_path / "a", "llama")
    tensors = load_file(source / "model.safetensors")
    begins = {name: {OFFSETS: [0] * tensor.ndim} for name, tensor in tensors.items()}
    save_file(tensors, source / "shard-1.safetensors", {FORMAT: json.dumps(begins)})
    (source / "model.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"a' has its tensors in parts, .*; export it in bf16 first"
    ):
        export(context(tmp_path, source, sums), format="int8", recipe={"python": "p"})


def test_rows_are_drawn_by_the_seed_and_nothing_fills_them_up(sums: Path) -> None:
    drawn = recipe._rows(sums, 8, seed=5)
    assert len(drawn) == 8
    assert drawn == recipe._rows(sums, 8, seed=5)
    assert drawn != recipe._rows(sums, 8, seed=6)
    pad = read_facts(sums).pad
    stored = [row.tolist() for row in read_rows(sums, "train").tokens]
    assert all(row[-1] != pad for row in drawn)
    for row in drawn:
        assert any(one[: len(row)] == row and {*one[len(row) :]} <= {pad} for one in stored)


@pytest.mark.parametrize("dialect", ["vllm", "ascend-modelslim"])
def test_codes_that_were_calibrated_are_kept_in_each_dialect(tmp_path: Path, dialect: str) -> None:
    source = save_tiny(tmp_path / "a", "llama")
    made = calibrated(source, tmp_path / "b")
    given = load_file(made / "model.safetensors")
    folder = Folder(source)
    choice = choose(AutoConfig.from_pretrained(source), folder.specs, SCHEMES["int8"])
    (tmp_path / "c").mkdir()
    Conversion(
        source=folder, form="int8", choice=choice, calibrated=Folder(made), dialect=dialect
    ).run(tmp_path / "c")
    stored = load_file(tmp_path / "c/model.safetensors")
    assert choice.quantized
    for name in choice.quantized:
        assert torch.equal(stored[name], given[name])
        assert torch.equal(stored[f"{name}_scale"], given[f"{name}_scale"])
        assert (f"{name}_offset" in stored) == (dialect == "ascend-modelslim")
    assert torch.equal(stored["model.norm.weight"], given["model.norm.weight"].to(torch.bfloat16))


def calibrated(source: Path, target: Path) -> Path:
    """A folder in int8 whose scales no rounding makes, and whose norms are others."""
    convert(source, target, "int8")
    stored = load_file(target / "model.safetensors")
    for name in stored:
        if name.endswith("_scale"):
            stored[name] *= 1.25
        if name.endswith("norm.weight"):
            stored[name] = stored[name].float() * 3
    save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_what_a_calibration_leaves_out_is_the_sources_and_what_it_invents_is_refused(
    tmp_path: Path,
) -> None:
    source = Folder(save_tiny(tmp_path / "a", "llama"))
    choice = choose(AutoConfig.from_pretrained(source.path), source.specs, SCHEMES["int8"])
    made = convert(source.path, tmp_path / "b", "int8")
    recipe._check_names(Folder(made), source, choice)
    stored = load_file(made / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    del stored[f"{name}_scale"]
    stored[name] = stored[name].bfloat16()
    save_file({**stored}, made / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"did not quantize {name}; leave the recipe out"):
        recipe._check_names(Folder(made), source, choice)
    stored["model.layers.1.mlp.other.weight"] = stored[name].clone()
    save_file(stored, made / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"wrote model.layers.1.mlp.other.weight, which"):
        recipe._check_names(Folder(made), source, choice)


def test_blocks_as_llm_compressor_writes_them_are_read_and_written_as_fp8(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "a", "qwen3")
    ours = convert(source, tmp_path / "b", "fp8")
    theirs = shutil.copytree(ours, tmp_path / "c")
    config = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps({**config, "quantization_config": FP8_BLOCK}))
    stored = load_file(theirs / "model.safetensors")
    renamed = {name.replace("_scale_inv", "_scale"): tensor for name, tensor in stored.items()}
    save_file(renamed, theirs / "model.safetensors", metadata={"format": "pt"})
    judges.decompressed(theirs)
    assert form_of(json.loads((theirs / "config.json").read_text())) == "fp8"
    read = weights.load(theirs, torch.float32, "cpu").state_dict()
    for name, weight in weights.load(ours, torch.float32, "cpu").state_dict().items():
        assert torch.equal(read[name], weight), name
    back = load_file(convert(theirs, tmp_path / "d", "fp8") / "model.safetensors")
    for name, tensor in stored.items():
        assert torch.equal(back[name].view(torch.uint8), tensor.view(torch.uint8)), name


def test_groups_of_other_shapes_are_refused() -> None:
    group = {"weights": {**judges.FP8_BLOCK["weights"], "strategy": "tensor"}}  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="'compressed-tensors' is of no kind that is read here"):
        form_of({"quantization_config": {**FP8_BLOCK, "config_groups": {"group_0": group}}})
    group = {"weights": {**judges.FP8_BLOCK["weights"], "block_structure": [0, 3]}}  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"block_structure is \[0, 3\], not rows and columns"):
        form_of({"quantization_config": {**FP8_BLOCK, "config_groups": {"group_0": group}}})


@torch.no_grad()
def divergence(folder: Path, trained: Path, rows: torch.Tensor, pad: int) -> float:
    """The mean KL divergence of a folder's model from what was trained, nats.

    What fills rows up is left out: a calibration never sees it, and it would be most of the mean.
    """
    ours, theirs = (
        weights.load(one, torch.float32, "cpu")(input_ids=rows).logits.log_softmax(-1)
        for one in (folder, trained)
    )
    apart = (theirs.exp() * (theirs - ours)).sum(-1)
    return float(apart[rows != pad].mean())


@pytest.fixture(scope="module")
def sharp(tmp_path_factory: pytest.TempPathFactory, undisturbed: LocalContext) -> Path:
    """A model whose weights are large enough for their rounding to show."""
    folder = shutil.copytree(undisturbed.output, tmp_path_factory.mktemp("sharp") / "model")
    stored = load_file(folder / "model.safetensors")
    for name, weight in stored.items():
        if "proj" in name or "embed" in name:
            stored[name] = weight * 4
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@there
@pytest.mark.llmcompressor
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("form", "modifiers"),
    [
        ("int8", {"GPTQModifier": {}}),
        ("int8", {"SmoothQuantModifier": {"smoothing_strength": 0.5}, "GPTQModifier": {}}),
        ("fp8", {"GPTQModifier": {}}),
    ],
    ids=["int8", "int8, smooth", "fp8"],
)
def test_what_is_calibrated_is_read_by_all_and_nearer_to_the_trained_model_than_rounding(
    tmp_path: Path, sharp: Path, sums: Path, form: str, modifiers: dict[str, dict[str, Any]]
) -> None:
    asked = {"python": str(PYTHON), "rows": 64, "modifiers": modifiers}
    ctx = context(tmp_path / "a", sharp, sums)
    export(ctx, format=form, recipe=asked)
    judges.decompressed(ctx.output)
    judges.opened(ctx.output)
    assert form_of(json.loads((ctx.output / "config.json").read_text())) == form
    rounded = context(tmp_path / "b", sharp)
    export(rounded, format=form)
    held = read_rows(sums, "validation").tokens[:32].long()
    pad = read_facts(sums).pad
    near, far = (divergence(one.output, sharp, held, pad) for one in (ctx, rounded))
    print(f"{form} by {', '.join(modifiers)}: {near:.3g} nats, rounded {far:.3g}")
    assert near < far
    asked_again = context(tmp_path / "reference", sharp, sums)
    reference.measure(asked_again, questions=min(60, read_facts(sums).rows["test"]), max_tokens=4)
    gate = LocalContext(
        folder=tmp_path / "gate", inputs={"reference": asked_again.output, "model": ctx.output}
    )
    if "SmoothQuantModifier" in modifiers:  # it moves scales from layer to layer
        with pytest.raises(ParityError, match="weights is "):
            check(gate)
        moved = ("weights", "unquantized", "rows", "unquantized_rows", "sums", "unquantized_sums")
        loose = {**LIMITS[form], **dict.fromkeys(moved, math.inf)}
        figures = check(gate, limits={**LIMITS, form: loose})
    else:
        figures = check(gate)
    print(f"  parity: {figures['parity/passed']:.0f}, KL {figures['parity/kl_mean']:.2g}")
    assert figures["parity/passed"] == 1.0
    assert f"calibrated by {', '.join(modifiers)} with 64 rows" in "".join(ctx.lines)


@there
@pytest.mark.llmcompressor
@pytest.mark.timeout(600)
def test_experts_are_calibrated_too_and_an_unknown_modifier_is_named(
    tmp_path: Path, undisturbed: LocalContext, sums: Path
) -> None:
    words = AutoConfig.from_pretrained(undisturbed.output).vocab_size
    source = save_tiny(tmp_path / "moe", "deepseek_v3", vocab_size=words)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(undisturbed.output / name, source)
    ctx = context(tmp_path / "a", source, sums)
    export(ctx, format="int8", recipe={"python": str(PYTHON), "rows": 8})
    judges.decompressed(ctx.output)
    plain = convert(source, tmp_path / "b", "int8")
    made, rounded = (load_file(one / "model.safetensors") for one in (ctx.output, plain))
    assert made.keys() == rounded.keys()
    name = "model.layers.1.mlp.experts.2.up_proj.weight"
    assert made[name].dtype == torch.int8
    assert not torch.equal(made[name], rounded[name])
    asked = {"python": str(PYTHON), "modifiers": {"Fancy": {}}}
    with pytest.raises(ValueError, match="llm-compressor has no modifier 'Fancy'; it has "):
        export(context(tmp_path / "c", source, sums), format="int8", recipe=asked)
