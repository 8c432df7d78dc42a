"""In which format the weights of a model folder are: what its `config.json` says."""

from __future__ import annotations

import json
from pathlib import Path

_PLAIN = {"float32": "fp32", "bfloat16": "bf16"}


def form_of(folder: Path) -> str:
    """Return the format of the weights in `folder`, by its name in configs."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    quantised = config.get("quantization_config")
    if quantised:
        method = str(quantised.get("quant_method"))
        return f"{method}_{scale}" if (scale := quantised.get("scale_fmt")) else method
    saved = str(config.get("dtype") or config.get("torch_dtype"))
    return _PLAIN.get(saved, saved)
