"""The parity stage against one plain `generate` of transformers over the same prompts.

Both load the same export; times are of the CPU, all threads of the process. The stage also scores
every place, compares, and draws its confidences; what the reference pass takes, with all of its
floor, is told beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import torch
from transformers import AutoModelForCausalLM

from jobs.data.tokenizer import load_tokenizer
from jobs.generation import greedy
from jobs.parity import reference
from jobs.parity.reading import read
from tests.benchmarks.table import Row, compare
from tests.jobs.local_context import LocalContext
from tests.jobs.parity import rates

QUESTIONS, TOKENS, AT_ONCE = 128, 16, 32


def rows() -> list[Row]:
    """Compare the gate and the reference pass with plain greedy answers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with TemporaryDirectory() as folder:
            return _rows(Path(folder))
    finally:
        torch.set_num_threads(threads)


def _rows(folder: Path) -> list[Row]:
    data = rates.prepared(folder / "data", questions=QUESTIONS)
    model = rates.trained(folder / "model", data, "llama", 0, steps=200, max_tokens=TOKENS)
    export = model.exported("bf16")
    prompts = [question.prompt for question in read(model.reference).questions]

    def plain() -> None:
        net = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32)
        words = load_tokenizer(export)
        for start in range(0, len(prompts), AT_ONCE):
            part = prompts[start : start + AT_ONCE]
            greedy(net, words, part, device="cpu", max_tokens=TOKENS)

    def gate() -> None:
        assert rates.verdict(model, export, {}) == ""

    theirs, ours = _least(plain), _least(gate)
    asked = LocalContext(
        folder=folder / "again", inputs={"data": data, "model": model.model}, seed=0
    )
    passes = _least(lambda: reference.measure(asked, max_tokens=TOKENS), 1)
    name = f"of {len(prompts)} questions: "
    return [
        compare(name + "parity", ours, theirs, goal="ratio <= 15"),
        compare(name + "reference, five passes", passes, theirs),
    ]


def _least(act: Callable[[], object], times: int = 3) -> float:
    """Return the least CPU time of `act`, seconds."""

    def once() -> float:
        began = process_time()
        act()
        return process_time() - began

    return min(once() for _ in range(times))
