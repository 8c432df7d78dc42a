"""Shards are Megatron's indexed datasets, byte by byte, and what is damaged is refused.

The files below were written by the `IndexedDatasetBuilder` of megatron-core 0.16.1.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.data.tokens.shards import Shard, ShardWriter, type_for
from jobs.data.tokens.stored_files import read_spans
from orchestrator.job import DataError

DOCUMENTS = [[1, 2, 3, 383], [7], [5, 6, 9, 9, 9, 2]]
IDX = (
    "4d4d4944494458000001000000000000000803000000000000000400000000000000"
    "040000000100000006000000000000000000000008000000000000000a00000000000000"
    "0000000000000000010000000000000002000000000000000300000000000000"
)
BIN = "0100020003007f010700050006000900090009000200"
# Two documents, the first one of two sequences.
IDX_OF_SEQUENCES = (
    "4d4d4944494458000001000000000000000403000000000000000300000000000000"
    "03000000020000000200000000000000000000000c000000000000001400000000000000"
    "000000000000000002000000000000000300000000000000"
)
BIN_OF_SEQUENCES = "0100000002000000030000009f860100070000000500000006000000"


def write(prefix: Path, documents: list[list[int]], vocabulary: int = 384) -> Path:
    with ShardWriter(prefix, type_for(vocabulary)) as writer:
        for document in documents:
            writer.add(document)
    return prefix


def documents_of(shard: Shard) -> list[list[int]]:
    edges = [*shard.starts.tolist(), shard.tokens]
    spans = [shard.span(begin, end) for begin, end in pairwise(edges)]
    return [content.view(shard.type).tolist() for content in read_spans(spans)]


def test_what_is_written_is_what_megatron_writes(tmp_path: Path) -> None:
    prefix = write(tmp_path / "shard", DOCUMENTS)
    assert Path(f"{prefix}.idx").read_bytes().hex() == IDX
    assert Path(f"{prefix}.bin").read_bytes().hex() == BIN


def test_what_megatron_writes_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.idx").write_bytes(bytes.fromhex(IDX_OF_SEQUENCES))
    (tmp_path / "m.bin").write_bytes(bytes.fromhex(BIN_OF_SEQUENCES))
    shard = Shard(str(tmp_path / "m"))
    assert documents_of(shard) == [[1, 2, 3, 99999, 7], [5, 6]]
    assert shard.starts_between(1, 6).tolist() == [5]


@pytest.mark.parametrize(("at", "number"), [(-24, 3), (-24, 2**40), (-16, -1), (-16, 7)])
def test_documents_that_begin_at_no_sequence_are_damage(
    tmp_path: Path, at: int, number: int
) -> None:
    index = bytearray.fromhex(IDX_OF_SEQUENCES)
    index[len(index) + at : len(index) + at + 8] = number.to_bytes(8, "little", signed=True)
    (tmp_path / "m.idx").write_bytes(bytes(index))
    (tmp_path / "m.bin").write_bytes(bytes.fromhex(BIN_OF_SEQUENCES))
    with pytest.raises(DataError, match=r"m.idx is damaged: a document begins at a sequence that"):
        Shard(str(tmp_path / "m"))


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9), max_size=9),
    st.sampled_from([300, 70_000]),
)
def test_documents_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], vocabulary: int
) -> None:
    kept = [[token % vocabulary for token in document] for document in documents]
    prefix = write(tmp_path_factory.mktemp("shard") / "shard", kept, vocabulary)
    shard = Shard(str(prefix))
    assert (documents_of(shard), len(shard)) == (kept, len(kept))


def test_as_many_bytes_are_taken_as_megatron_takes() -> None:
    names = [type_for(vocabulary).name for vocabulary in (300, 65_499, 65_500, 200_000)]
    assert names == ["uint16", "uint16", "int32", "int32"]


@pytest.mark.parametrize("document", [[], [-1], [70_000]])
def test_a_document_that_can_not_be_written_is_refused(
    tmp_path: Path, document: list[int]
) -> None:
    with (
        pytest.raises(ValueError, match="at least one"),
        ShardWriter(tmp_path / "shard", np.dtype("<u2")) as writer,
    ):
        writer.add(document)
    assert not (tmp_path / "shard.idx").exists(), "who fails leaves nothing that looks whole"


@pytest.mark.parametrize(
    ("file", "keep", "message"),
    [
        ("shard.bin", 20, r"shard.bin is cut short: it has 20 bytes, and its index says 22"),
        ("shard.bin", 0, r"shard.bin is cut short: it has 0 bytes, and its index says 22"),
        ("shard.idx", 0, r"shard.idx is empty: the shard was never finished"),
        ("shard.idx", 90, r"shard.idx is cut short: it has 90 bytes, and says that it has 102"),
        ("shard.idx", 12, r"shard.idx is no index of tokens"),
    ],
)
def test_what_is_cut_short_is_refused(tmp_path: Path, file: str, keep: int, message: str) -> None:
    write(tmp_path / "shard", DOCUMENTS)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=message):
        Shard(str(tmp_path / "shard"))


def test_tokens_of_another_index_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "shard", DOCUMENTS)
    with (tmp_path / "shard.bin").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(DataError, match="does not belong to its index"):
        Shard(str(tmp_path / "shard"))


@pytest.mark.parametrize("end", [".idx", ".bin"])
def test_what_is_missing_is_named(tmp_path: Path, end: str) -> None:
    write(tmp_path / "shard", DOCUMENTS)
    (tmp_path / f"shard{end}").unlink()
    with pytest.raises(DataError, match=rf"shard\{end} is missing"):
        Shard(str(tmp_path / "shard"))


def test_another_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "shard", DOCUMENTS)
    path = tmp_path / "shard.idx"
    path.write_bytes(path.read_bytes()[:9] + b"\x02" + path.read_bytes()[10:])
    with pytest.raises(DataError, match="has version 2 and type 8, which are not read"):
        Shard(str(tmp_path / "shard"))
