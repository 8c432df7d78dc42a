"""Prints which foreign reader reads which format of which type of model: a table in Markdown.

    python -m tests.jobs.formats.readers [TYPE ...]

All types that transformers knows, where none is named. What is not read stands there in the words
of who refuses it; `made up` is a model that transformers fills with random weights.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers.utils import logging

from jobs.formats.choice import choose
from jobs.formats.schemes import SCHEMES
from tests.jobs.formats import judges, zoo
from tests.jobs.formats.models import convert
from tests.jobs.formats.test_choice import unnamed

FORMATS = ("bf16", "fp8_ue8m0", "int8", "mxfp8")
WIDTH = 90  # characters of what a reader says


def main(kinds: list[str]) -> None:
    """Print a line for each type, then how often each answer came."""
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    answers: Counter[str] = Counter()
    print("| type | named | format | compressed-tensors | transformers |\n" + "| --- " * 5 + "|")
    for kind in kinds:
        for line in _lines(kind):
            print(f"| {' | '.join(line)} |", flush=True)
            for reader, said in (("compressed-tensors", line[3]), ("transformers", line[4])):
                answers[f"{reader}, {line[2]}: {'read' if said == 'read' else 'not read'}"] += 1
    for answer, count in sorted(answers.items()):
        print(f"{count:5} {answer}")


def _lines(kind: str) -> list[tuple[str, str, str, str, str]]:
    try:
        config = zoo.small(kind)
        specs = zoo.on_disk(config)
        left = unnamed(choose(config, specs, SCHEMES["int8"]), specs)
    except Exception as error:  # noqa: BLE001 - what a foreign type says is what is asked
        return [(kind, _words(error), "", "", "")]
    named = f"not {min(left)}" if left else "all"
    with TemporaryDirectory(prefix="readers-") as place:
        source = Path(place, "source")
        try:
            zoo.save(config, source)
        except Exception as error:  # noqa: BLE001 - as above
            return [(kind, named, "", _words(error), "")]
        return [_line(kind, named, form, source, Path(place, form)) for form in FORMATS]


def _line(kind: str, named: str, form: str, source: Path, target: Path) -> tuple[str, ...]:
    try:
        made = convert(source, target, form)
    except Exception as error:  # noqa: BLE001 - as above
        return kind, named, form, f"not written: {_words(error)}", ""
    read = _said(judges.decompressed, made) if form != "bf16" else ""
    return kind, named, form, read, _said(judges.opened, made)


def _said(judge: Callable[[Path], Any], folder: Path) -> str:
    try:
        judge(folder)
    except (Exception, AssertionError) as error:  # noqa: BLE001 - as above
        return _words(error)
    return "read"


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:WIDTH].replace("|", "/")


if __name__ == "__main__":
    main(sys.argv[1:] or list(zoo.TYPES))
