"""Quantizes a model by llm-compressor: a script for an environment that has it.

    python -I compress.py < ORDER

The order is a line of JSON, as `recipe` writes it. The script ends with the worker that started
it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

import torch
from llmcompressor import oneshot
from llmcompressor.modifiers.factory import ModifierFactory
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

_PACKAGE = "llmcompressor.modifiers"
_SECONDS = 1.0  # between two looks for the worker
_SCHEME = "scheme"  # a field of what quantizes, and of nothing else


def main() -> None:
    """Read the order, and write the folder."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with, args=(order["worker"],), daemon=True).start()
    torch.set_num_threads(order["threads"])
    modifiers = _modifiers(order)
    model = AutoModelForCausalLM.from_pretrained(
        order["model"], dtype="auto", local_files_only=True
    )
    rows: Any = [{"input_ids": torch.tensor(row)} for row in order["rows"]]
    oneshot(
        model=model,
        processor=object(),  # what is given are tokens
        dataset=DataLoader(rows, batch_size=1),
        num_calibration_samples=len(rows),
        recipe=modifiers,
        pipeline="sequential",
    )
    model.save_pretrained(order["output"], save_compressed=True)


def _modifiers(order: dict[str, Any]) -> list[Any]:
    """Return the modifiers; those that quantize are told the scheme and what stays as it is."""
    known = ModifierFactory.load_from_package(_PACKAGE)
    modifiers = []
    for name, said in order["modifiers"].items():
        if name not in known:
            sys.exit(f"llm-compressor has no modifier {name!r}; it has {', '.join(sorted(known))}")
        own = {"targets": ["Linear"], _SCHEME: order[_SCHEME], "ignore": order["ignore"]}
        modifiers.append(
            known[name](**said, **(own if _SCHEME in known[name].model_fields else {}))
        )
    return modifiers


def _end_with(worker: int) -> None:
    """End once the process `worker` is this one's parent no more."""
    pause = threading.Event()
    while os.getppid() == worker:
        pause.wait(_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
