"""Foreign readers of model folders: what each says of one of ours."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from jobs.engines import weights
from jobs.formats.folder import Folder

# What compressed-tensors calls the blocks that transformers and vLLM know as `fp8`.
FP8_BLOCK = {
    "targets": ["Linear"],
    "weights": {
        "num_bits": 8,
        "type": "float",
        "strategy": "block",
        "symmetric": True,
        "block_structure": [128, 128],
        "dynamic": False,
    },
}


def decompressed(folder: Path) -> None:
    """Have compressed-tensors read every quantized weight; it must be what our reader makes of it.

    Raises:
        ValueError: A weight is another.
    """
    source = Folder(folder)
    assert source.scheme is not None
    name, scheme = _scheme(json.loads((folder / "config.json").read_text()))
    reader = BaseCompressor.get_value_from_registry(name)
    stored: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        stored |= load_file(file)
    count = 0
    for weight in filter(source.is_quantized, source.specs):
        scale = stored[f"{weight}{source.scheme.suffix}"]
        theirs = reader.decompress({"weight": stored[weight], "weight_scale": scale}, scheme)
        ours = source.read(weight, theirs["weight"].dtype)
        if not torch.equal(theirs["weight"], ours):
            raise ValueError(f"{weight} is another")
        count += 1
    assert count, "nothing is quantized"


def opened(folder: Path) -> None:
    """Have transformers read a folder: every weight, and then the scores, must be our reader's.

    Raises:
        ValueError: They are others, or transformers can't convert what it reads.
    """
    said = json.loads((folder / "config.json").read_text()).get("quantization_config", {})
    more: dict[str, Any] = {"dtype": torch.float32}
    if said.get("quant_method") == "compressed-tensors":
        more["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    elif said:
        more["dtype"] = torch.bfloat16  # its reader of `fp8` knows no other
    with warnings.catch_warnings(action="ignore"), _conversions():  # it warns of our record
        theirs, loading = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, **more
        )
    if loading["missing_keys"]:
        raise ValueError(f"{min(loading['missing_keys'])} is made up")
    ours = weights.load(folder, more["dtype"], "cpu")
    expected = ours.state_dict()
    for name, weight in theirs.state_dict().items():
        if not torch.equal(weight, expected[name]):
            raise ValueError(f"{name} is another")
    tokens = torch.arange(3, 35)[None]
    with torch.no_grad():
        one, other = (m.eval()(input_ids=tokens, use_cache=False).logits for m in (theirs, ours))
    if not torch.allclose(one, other, atol=1e-4, rtol=1e-3):
        apart = float((one - other).abs().max())
        raise ValueError(f"of equal weights scores differ by {apart:.3g}")


@contextmanager
def _conversions() -> Iterator[None]:
    """Raise what transformers tells of a weight that it can't convert: its error names a log."""
    told: list[str] = []
    report = logging.getLogger("transformers.modeling_utils")
    listener = logging.Handler()
    listener.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    level = report.level
    report.addHandler(listener)
    report.setLevel(logging.WARNING)
    try:
        yield
    except RuntimeError as error:
        lines = "\n".join(told).splitlines()
        found = [at for at, line in enumerate(lines) if line.startswith("Error: ")]
        if not found:
            raise
        raise ValueError(f"{lines[found[0] - 1]} ({lines[found[0]]})") from error
    finally:
        report.removeHandler(listener)
        report.setLevel(level)


def _scheme(config: dict[str, Any]) -> tuple[str, QuantizationScheme]:
    said = config["quantization_config"]
    if said["quant_method"] == "compressed-tensors":
        parsed = QuantizationConfig.model_validate(said)
        return said["format"], parsed.config_groups["group_0"]
    return "float-quantized", QuantizationScheme.model_validate(FP8_BLOCK)
