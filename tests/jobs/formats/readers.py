"""Prints which foreign reader reads which format of which type of model: a table in Markdown.

    python -m tests.jobs.formats.readers [TYPE ...]

All types that transformers knows, where none is named. What is not read stands there in the words
of who refuses it; `made up` is a model that transformers fills with random weights.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers.utils import logging

from jobs.formats.choice import choose
from jobs.formats.folder import Folder
from jobs.formats.schemes import SCHEMES
from tests.jobs.formats import judges, zoo
from tests.jobs.formats.models import convert
from tests.jobs.formats.test_choice import unnamed

FORMATS = ("bf16", "fp8_ue8m0", "int8", "mxfp8")
WIDTH = 160  # characters of what a reader says
ALL, READ, NOTHING = "all", "read", "nothing to quantize"


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
            answers.update(_counted(*line[1:]))
    print()
    for answer, count in sorted(answers.items()):
        print(f"{count:5} {answer}")


def _counted(named: str, form: str, *readers: str) -> Iterator[str]:
    """Yield what a line of the table says, without the words; of a type the first line is BF16."""
    if form in ("", FORMATS[0]):
        yield "types"
        yield f"types, {'every weight quantized or named' if named == ALL else 'not so'}"
        yield f"types, {'written' if form else 'not written'}"
    for reader, said in zip(("compressed-tensors", "transformers"), readers, strict=True):
        if form and said:
            yield f"{form}, {reader}: {said if said in (READ, NOTHING) else 'not read'}"


def _lines(kind: str) -> list[tuple[str, str, str, str, str]]:
    try:
        config = zoo.small(kind)
        specs = zoo.on_disk(config)
        left = unnamed(choose(config, specs, SCHEMES["int8"]), specs)
    except Exception as error:  # noqa: BLE001 - what a foreign type says is what is asked
        return [(kind, _words(error), "", "", "")]
    named = f"not {min(left)}" if left else ALL
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
    opened = _said(judges.opened, made)
    if form == FORMATS[0]:
        return kind, named, form, "", opened
    source = Folder(made)
    quantized = any(map(source.is_quantized, source.specs))
    return kind, named, form, _said(judges.decompressed, made) if quantized else NOTHING, opened


def _said(judge: Callable[[Path], Any], folder: Path) -> str:
    try:
        judge(folder)
    except (Exception, AssertionError) as error:  # noqa: BLE001 - as above
        return _words(error)
    return READ


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:WIDTH].replace("|", "/")


if __name__ == "__main__":
    main(sys.argv[1:] or list(zoo.TYPES))
