"""Which files of a folder are of which split, as `datasets` and the Hugging Face hub have it.

The first of these that any file fits decides, and what does not fit it is in no split: files
`data/SPLIT-00000-of-00001.*`, the folders of a saved `DatasetDict`, folders with a word for a
split in their names, files with one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from jobs.data.splits import TEST, TRAIN, VALIDATION

ALL = "all"  # of `datasets`, too: every file, whatever its split
SAVED = "dataset_dict.json"  # stands beside the folders of a saved `DatasetDict`
_WORDS = {
    TRAIN: {"train", "training"},
    VALIDATION: {"validation", "valid", "dev", "val"},
    TEST: {"test", "testing", "eval", "evaluation"},
}
_BETWEEN_WORDS = re.compile(r"[-._ 0-9]+")
_SHARD = re.compile(r"data/(?P<split>\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*\.[^/]*")


def splits_of(paths: Sequence[str], *, saved: bool = False) -> dict[str, list[str]]:
    """Return the files of each split, by paths within their folder; nothing where none is named.

    `saved` is a folder that `DatasetDict.save_to_disk` has written.
    """
    rules = (_by_shard, _by_saved_folder if saved else _by_nothing, _by_folder, _by_file)
    for rule in rules:
        splits: dict[str, list[str]] = {}
        for path in paths:
            for split in rule(PurePosixPath(path)):
                splits.setdefault(split, []).append(path)
        if splits:
            return splits
    return {}


def _by_shard(path: PurePosixPath) -> Iterator[str]:
    if match := _SHARD.fullmatch(str(path)):
        yield match["split"]


def _by_saved_folder(path: PurePosixPath) -> Iterator[str]:
    yield from path.parts[:-1][:1]


def _by_nothing(_: PurePosixPath) -> Iterator[str]:
    yield from ()


def _by_folder(path: PurePosixPath) -> Iterator[str]:
    yield from _named({word for part in path.parts[:-1] for word in _BETWEEN_WORDS.split(part)})


def _by_file(path: PurePosixPath) -> Iterator[str]:
    yield from _named({*_BETWEEN_WORDS.split(path.name)[:-1]})  # the last is the kind of the file


def _named(words: set[str]) -> Iterator[str]:
    for split, known in _WORDS.items():
        if words & known:
            yield split
