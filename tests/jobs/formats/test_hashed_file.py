"""A file's hash is that of its bytes, in whatever order and by however many threads they come."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.formats.hashed_file import HashedFile


def parts_of(contents: bytes, cuts: list[int]) -> list[tuple[int, memoryview]]:
    edges = [0, *sorted(cuts), len(contents)]
    return [(a, memoryview(contents)[a:b]) for a, b in pairwise(edges)]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=12), st.randoms())
def test_the_order_of_writing_changes_nothing(
    contents: bytes, cuts: list[int], random: Random
) -> None:
    parts = parts_of(contents, [min(cut, len(contents)) for cut in cuts])
    random.shuffle(parts)
    with TemporaryDirectory() as folder:
        file = HashedFile(Path(folder, "file"), len(contents))
        for at, part in parts:
            file.write(at, part)
        file.close()
        assert Path(folder, "file").read_bytes() == contents
    assert file.sha256() == hashlib.sha256(contents).hexdigest()


def test_threads_write_at_once(tmp_path: Path) -> None:
    contents = Random(1).randbytes(4 << 20)  # noqa: S311 - no secret
    # Small parts, and one that is read back in several blocks.
    parts = parts_of(contents, Random(2).sample(range(1 << 20), 400))  # noqa: S311 - no secret
    Random(3).shuffle(parts)  # noqa: S311 - no secret
    for turn in range(5):
        file = HashedFile(tmp_path / f"{turn}", len(contents))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(file.write, *zip(*parts, strict=True)))
        file.close()
        assert file.sha256() == hashlib.sha256(contents).hexdigest()


def test_what_comes_in_order_is_not_read_back(tmp_path: Path) -> None:
    file = HashedFile(tmp_path / "file", 4)
    file.write(0, memoryview(b"ab"))
    (tmp_path / "file").write_bytes(b"xx--")
    file.write(2, memoryview(b"cd"))
    file.close()
    assert file.sha256() == hashlib.sha256(b"abcd").hexdigest()


def test_a_file_that_somebody_cuts_short_is_told(tmp_path: Path) -> None:
    file = HashedFile(tmp_path / "file", 4)
    file.write(2, memoryview(b"cd"))
    os.truncate(tmp_path / "file", 2)
    with pytest.raises(OSError, match=r"file' was cut short while it was written"):
        file.write(0, memoryview(b"ab"))
    file.close()


def test_there_is_no_hash_before_all_is_written(tmp_path: Path) -> None:
    file = HashedFile(tmp_path / "file", 4)
    file.write(2, memoryview(b"cd"))
    with pytest.raises(ValueError, match="4 bytes are not hashed yet"):
        file.sha256()
    file.close()
