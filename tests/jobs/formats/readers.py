"""Prints which foreign reader reads which format of which type of model: a table in Markdown.

    python -m tests.jobs.formats.readers [vllm] [TYPE ...]

All types that transformers knows, where none is named. What is not read stands there in the words
of who refuses it; `made up` is a model that transformers fills with random weights. The table of
`vllm` tells how far its scores of texts are from transformers' (mean KL divergence, in nats), and
by which of its models it has them.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
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
from tests.jobs.formats.vllm_judge import (
    ALLOWED,
    FACTOR,
    MORE_TOKENS,
    TOKENS,
    Vllm,
    divergence,
    noise,
)

FORMATS = ("bf16", "fp8_ue8m0", "int8", "mxfp8")
WIDTH = 160  # characters of what a reader says
ALL, READ, NOTHING = "all", "read", "nothing to quantize"
SERVED = ("bf16", "int8")
MEASURED = ("agrees", "differs")
NAMES = re.compile(r"'[^']*'|\d+")  # what differs from type to type in what is said
WANTS_BF16 = "requires BF16"
SECONDS = 60.0  # for a folder in vLLM


def main(arguments: list[str]) -> None:
    """Print the table that is asked for."""
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    asks_vllm = arguments[:1] == ["vllm"]
    table = _scores if asks_vllm else _weights
    table(arguments[asks_vllm:] or list(zoo.TYPES))


def _weights(kinds: list[str]) -> None:
    """Print a line for each type and format, then how often each answer came."""
    print("| type | named | format | compressed-tensors | transformers |\n" + "| --- " * 5 + "|")
    answers = weights_read(kinds)
    print()
    for answer, count in sorted(answers.items()):
        print(f"{count:5} {answer}")


def weights_read(kinds: Iterable[str]) -> Counter[str]:
    """Return how often each answer came, and print a line for each type and format."""
    answers: Counter[str] = Counter()
    for kind in kinds:
        for line in _lines(kind):
            print(f"| {' | '.join(line)} |", flush=True)
            answers.update(_counted(*line[1:]))
    return answers


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


def _scores(kinds: list[str]) -> None:
    """Print a line for each type and format, then which types had each answer of vLLM."""
    answers: defaultdict[str, list[str]] = defaultdict(list)
    print("| type | format | model of vLLM | answer | |\n" + "| --- " * 5 + "|")
    with TemporaryDirectory(prefix="readers-") as home, Vllm(Path(home), SECONDS) as vllm:
        for kind in kinds:
            for form, model, answer, more in _served(kind, vllm):
                print(f"| {kind} | {form} | {model} | {answer} | {more} |", flush=True)
                answers[f"{form} {answer}"].append(kind)
                if answer not in MEASURED:
                    answers[f"{form} {answer}: {NAMES.sub('_', more)}"].append(kind)
    print()
    for said, of in sorted(answers.items()):
        print(f"{len(of):5} {said}: {', '.join(of)}")


def _served(kind: str, vllm: Vllm) -> Iterator[tuple[str, str, str, str]]:
    """Yield for each format its name, the model of vLLM, its answer and figure or words."""
    with TemporaryDirectory(prefix="readers-") as place:
        source = Path(place, "source")
        try:
            zoo.save(zoo.small(kind, zoo.WIDER), source, spread=0.15)
        except Exception as error:  # noqa: BLE001 - as above
            yield "", "", "not made", _words(error)
            return
        for form in SERVED:
            yield form, *_compared(source, Path(place, form), form, vllm)


def _compared(source: Path, target: Path, form: str, vllm: Vllm) -> tuple[str, str, str]:
    try:
        answer = vllm.answer(convert(source, target, form))
        allowed, tokens = ALLOWED, TOKENS
        if WANTS_BF16 in answer.get("refused", ""):
            tokens = MORE_TOKENS
            answer = vllm.answer(target, "bfloat16", tokens)
            allowed += FACTOR * noise(target, tokens)
        if "refused" in answer:
            return "", "refused", _short(answer["refused"])
        found = divergence(target, answer, tokens, by_token=form == "int8")
        of_weights = divergence(target, answer, tokens, by_token=False)
    except Exception as error:  # noqa: BLE001 - as above
        return "", "no scores of transformers", _words(error)
    said = f"{found:.1e} of {of_weights:.1e}, {allowed:.1e} is allowed"
    return answer["model"], MEASURED[not found < allowed], said


def _said(judge: Callable[[Path], Any], folder: Path) -> str:
    try:
        judge(folder)
    except (Exception, AssertionError) as error:  # noqa: BLE001 - as above
        return _words(error)
    return READ


def _words(error: BaseException) -> str:
    return _short(f"{type(error).__name__}: {error}")


def _short(said: str) -> str:
    return " ".join(said.split())[:WIDTH].replace("|", "/")


if __name__ == "__main__":
    main(sys.argv[1:] or list(zoo.TYPES))
