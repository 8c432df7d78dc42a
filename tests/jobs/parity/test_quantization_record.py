"""What a folder says of its quantized weights is held to be what its tensors are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.engines.weights import load
from jobs.formats.folder import Folder
from jobs.formats.modelslim import FILE
from jobs.parity.quantization_record import choice_in, wrong_statements
from jobs.parity.weight_norms import furthest, norms
from tests.jobs.formats import zoo
from tests.jobs.formats.models import convert, save_tiny

DIALECTS = (
    *(("fp8", "vllm"), ("fp8_ue8m0", "vllm"), ("int8", "vllm"), ("mxfp8", "vllm")),
    *(("mxfp8", "sglang"), ("int8", "ascend-modelslim"), ("mxfp8", "ascend-modelslim")),
)


def wrong(path: Path) -> list[str]:
    folder = Folder(path)
    return wrong_statements(folder, choice_in(folder))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("trained") / "model", "deepseek_v3")


@pytest.mark.parametrize(("form", "dialect"), DIALECTS)
def test_honest_folders_say_nothing_wrong(
    trained: Path, tmp_path: Path, form: str, dialect: str
) -> None:
    assert wrong(convert(trained, tmp_path / "made", form, dialect=dialect)) == []


def group(fields: dict[str, Any]) -> dict[str, Any]:
    (only,) = fields["config_groups"].values()
    assert isinstance(only, dict)
    return only


@pytest.mark.parametrize(
    ("form", "dialect", "change", "said"),
    [
        ("fp8", "vllm", lambda q: q.update(modules_to_not_convert=[]), "lm_head"),
        (
            "fp8",
            "vllm",
            lambda q: q["modules_to_not_convert"].append("model.layers.0"),
            "layers.0",
        ),
        ("fp8", "vllm", lambda q: q.update(activation_scheme="static"), "activation_scheme"),
        ("mxfp8", "sglang", lambda q: q.pop("modules_to_not_convert"), "lm_head"),
        ("int8", "vllm", lambda q: q.update(ignore=[]), "lm_head"),
        ("int8", "vllm", lambda q: q["ignore"].remove("model.layers.1.mlp.gate"), "mlp.gate"),
        ("int8", "vllm", lambda q: q["ignore"].append("re:.*o_proj"), "self_attn.o_proj"),
        ("int8", "vllm", lambda q: group(q).update(targets=["Conv2d"]), "targets"),
        (
            "int8",
            "vllm",
            lambda q: group(q)["input_activations"].update(num_bits=4),
            "config_groups.group_0.input_activations.num_bits",
        ),
        ("mxfp8", "vllm", lambda q: group(q).update(input_activations=None), "input_activations"),
    ],
)
def test_a_false_record_is_seen(
    trained: Path,
    tmp_path: Path,
    form: str,
    dialect: str,
    change: Callable[[dict[str, Any]], object],
    said: str,
) -> None:
    folder = convert(trained, tmp_path / "made", form, dialect=dialect)
    config = json.loads((folder / "config.json").read_text())
    change(config["quantization_config"])
    (folder / "config.json").write_text(json.dumps(config))
    assert any(said in name for name in wrong(folder))


def test_a_false_description_is_seen(trained: Path, tmp_path: Path) -> None:
    folder = convert(trained, tmp_path / "made", "int8", dialect="ascend-modelslim")
    described = json.loads((folder / FILE).read_text())
    router = "model.layers.1.mlp.gate.weight"
    described[router] = "W8A8_DYNAMIC"
    (folder / FILE).write_text(json.dumps(described))
    assert wrong(folder) == [router]


@pytest.mark.parametrize("kind", ["mixtral", "deepseek_v4"])
def test_a_router_of_another_name_in_memory_is_held_to_the_limit_of_what_is_not_quantized(
    tmp_path: Path, kind: str
) -> None:
    torch.manual_seed(0)
    zoo.save(zoo.small(kind), tmp_path / "trained")
    folder = Folder(convert(tmp_path / "trained", tmp_path / "made", "fp8"))
    codes = choice_in(folder).quantized_in_memory
    trained, served = (
        load(path, "float32", "cpu") for path in (tmp_path / "trained", folder.path)
    )
    reference = norms(trained)
    assert furthest(reference, norms(served), codes)[0] < 0.01
    assert furthest(reference, norms(served), codes, figure="sums")[0] < 0.015
    assert wrong_statements(folder, choice_in(folder)) == []
    routers = [name for name, _ in served.named_parameters() if name.endswith(".gate.weight")]
    with torch.no_grad():
        for name in routers:
            served.get_parameter(name).mul_(1.03)
    change, name = furthest(reference, norms(served), codes)
    assert name.partition(":")[0] in routers
    assert change == pytest.approx(0.03, rel=0.1)
