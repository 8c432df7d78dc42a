"""Prints by what the parity gate judges each type of model: a table in Markdown.

    python -m tests.jobs.parity.types_judged [TYPE ...]

All types that transformers knows, where none is named: made small, saved, read and tried as the
engines of the gate do it, some 3 minutes.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers.utils import logging

from jobs.engines import probe
from jobs.engines.cache import SlotCache, windows_of
from jobs.engines.forward import ModelForward
from jobs.engines.type_limits import check_type, context_of, vocabulary_of
from jobs.engines.weights import load
from tests.jobs.formats import zoo

EMBEDDED, ALONE, NOBODY, NOT_MADE = "embedded engine", "transformers alone", "nobody", "not made"
CONTEXT = 4096
WIDTH = 160  # characters of what is said


def main(kinds: list[str]) -> None:
    """Print a line for each type, then how often each answer came."""
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print("| type | judged by | why not the embedded engine |\n| --- | --- | --- |")
    counts = judges_of(kinds or zoo.TYPES)
    print()
    for judge, count in counts.most_common():
        print(f"{count:5} {judge}")


def judges_of(kinds: Iterable[str]) -> Counter[str]:
    """Return how many types each judges, and print a line for each."""
    counts: Counter[str] = Counter()
    for kind in kinds:
        judge, why = _judged(kind)
        counts[judge] += 1
        print(f"| {kind} | {judge} | {why} |", flush=True)
    return counts


def _judged(kind: str) -> tuple[str, str]:
    """Return who judges a type, and why others don't."""
    try:
        config = zoo.small(kind)
    except Exception as error:  # noqa: BLE001 - what a foreign type says is what is asked
        return NOT_MADE, _words(error)
    with TemporaryDirectory(prefix="types-") as place:
        try:
            model = load(zoo.save(config, Path(place, "model")), "auto", "cpu")
            check_type(model.config)
        except Exception as error:  # noqa: BLE001 - as above
            return NOBODY, _words(error)
    try:
        _try_cache(model)
    except Exception as error:  # noqa: BLE001 - as above
        try:
            probe.by_model(model, probe.prompt(vocabulary_of(model.config)))
        except Exception as alone:  # noqa: BLE001 - as above
            return NOBODY, _words(alone)
        return ALONE, _words(error)
    return EMBEDDED, ""


def _try_cache(model: Any) -> None:
    longest = min(context_of(model.config), CONTEXT)
    cache = SlotCache(windows_of(model.config, longest), longest, torch.device("cpu"))
    probe.check(model, ModelForward(model), cache)


def _words(error: BaseException) -> str:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return said[:WIDTH].replace("|", "/")


if __name__ == "__main__":
    main(sys.argv[1:])
