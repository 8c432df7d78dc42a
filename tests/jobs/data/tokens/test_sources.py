"""Documents of files: whatever a file is cut into, each is read once; what is damaged is named."""

from __future__ import annotations

import errno
import gzip
import io
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from jobs.data.tokens import stored_files
from jobs.data.tokens.sources import SourcePart, documents_of, parts_of
from orchestrator.job import DataError
from tests.jobs.data.tokens.corpora import texts, write_records


def zstandard(content: bytes) -> bytes:
    return pa.compress(content, "zstd", asbytes=True)


def read(source: Path | str, size: int = 200, *, lines: bool = False) -> list[str]:
    parts = parts_of([str(source)], size=size, lines=lines)
    return [record["text"] for part in parts for record in documents_of(part, "text")]


@settings(max_examples=20)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=9)), st.integers(1, 60))
def test_each_line_is_read_once_wherever_the_file_is_cut(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], size: int
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    records = [json.dumps({"text": text}, ensure_ascii=False) for text in documents]
    (folder / "a.jsonl").write_bytes("\n".join(records).encode())  # the last line has no end
    assert read(folder, size) == documents


def test_parts_are_of_the_size_that_is_asked_for(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.jsonl", [{"text": text} for text in texts(50)])
    size = path.stat().st_size
    parts = parts_of([str(path)], size=1000, lines=False)
    assert [part.begin for part in parts] == [*range(0, size, 1000)]
    assert parts[-1].end == size


def test_files_of_a_folder_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, first in (("b.jsonl", 10), ("a.ndjson", 0), ("sub/c.jsonl", 20)):
        write_records(tmp_path / name, [{"text": text} for text in texts(10, first)])
    write_records(tmp_path / "dataset_info.json", [{"text": "what the hub says of the data"}])
    write_records(tmp_path / ".hidden.jsonl", [{"text": "hidden"}])
    assert read(tmp_path) == texts(30)
    assert read(tmp_path / "[ab].*") == texts(20)
    assert read(tmp_path / "b.jsonl") == texts(10, 10)


@pytest.mark.parametrize("kind", ["gz", "xz", "zst"])
def test_a_compressed_file_is_one_part(tmp_path: Path, kind: str) -> None:
    pack = {"gz": gzip.compress, "xz": lzma.compress, "zst": zstandard}[kind]
    records = "".join(f"{json.dumps({'text': text})}\n" for text in texts(60))
    (tmp_path / f"a.jsonl.{kind}").write_bytes(pack(records.encode()))
    assert len(parts_of([str(tmp_path)], size=100, lines=False)) == 1
    assert read(tmp_path) == texts(60)


def test_a_text_is_a_document_or_each_of_its_lines_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", "utf-8")
    assert read(tmp_path) == ["one\n\ntwo\n"]
    assert read(tmp_path, 3, lines=True) == ["one", "two"]


def test_parquet_is_cut_between_its_row_groups(tmp_path: Path) -> None:
    table = pa.table({"text": texts(100), "other": [*range(100)]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=10)
    parts = parts_of([str(tmp_path)], size=1, lines=False)
    assert [(part.begin, part.end) for part in parts] == [(n, n + 1) for n in range(10)]
    assert read(tmp_path, 1) == read(tmp_path, 10**9) == texts(100)
    (record,) = {tuple(record) for record in documents_of(parts[0], "text")}
    assert record == ("text",), "no other column is read"


def test_folders_that_datasets_has_saved_are_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"text": texts(30)})
    table.save_to_disk(tmp_path / "saved", num_shards=2)
    table.to_parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
    table.to_json(tmp_path / "json" / "train.jsonl")
    assert [read(tmp_path / name) for name in ("saved", "hub", "json")] == [texts(30)] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": \n', r"a.jsonl: what begins at byte 14 is no JSON$"),
        (b'{"text": "a"}\n\xff\xfe\n', r"a.jsonl: what begins at byte 14 is no UTF-8$"),
        (b'{"text": "a"}\n[1]\n', r"a.jsonl: what begins at byte 14 is no JSON object$"),
    ],
)
def test_a_line_that_can_not_be_read_is_named(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path, 10)


@pytest.mark.parametrize("content", ['[\n  {"text": "a"}\n]\n', '[{"text": "a"}]', '[{"text":\n'])
def test_of_a_file_that_is_one_array_it_is_said_what_to_write_instead(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a.json: what begins at byte 0 .* is one array, write"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.arrow", "a.jsonl.gz", "a.jsonl.xz", "a.jsonl.zst"]
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no such thing" * 9)
    with pytest.raises(DataError, match=f"{name} is damaged: "):
        read(tmp_path)


def test_a_table_without_the_column_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"content": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"has no column 'text': \['content'\]"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["nothing", "a.csv"])
def test_a_source_without_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").write_text("a,b\n", "utf-8")
    with pytest.raises(DataError, match=rf"{name}.* has no file to read: they end with \.arrow"):
        read(tmp_path / name)


def test_a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    part = SourcePart(path=str(tmp_path / "a.jsonl"), kind="records", end=9, size=9)
    with pytest.raises(DataError, match=r"a.jsonl is missing"):
        list(documents_of(part, "text"))


class FaultyStore(MemoryFileSystem):
    """A store that breaks some answers off: each `every`-th of them."""

    protocol = "faulty"
    cachable = False
    every, answers, short = 2, 0, False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.removeprefix("faulty:/"))
        return stripped

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        content: bytes = super().cat_file(path, start, end, **kwargs)
        return content[:-1] if self._fails() else content

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        store, file = self, super()._open(path, *args, **kwargs)

        class Stream(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                return b"" if store._fails() else super().read(size)

        return Stream(file.getvalue())

    def _fails(self) -> bool:
        """Break an answer off, or have it come short."""
        kind = type(self)
        kind.answers += 1
        if kind.answers % kind.every:
            return False
        if not kind.short:
            raise OSError("the connection was reset")
        return True


@pytest.fixture(params=["broken off", "short"])
def faulty_store(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[type[FaultyStore]]:
    fsspec.register_implementation("faulty", FaultyStore, clobber=True)
    monkeypatch.setattr(stored_files, "_FIRST_PAUSE", 0.0)
    monkeypatch.setattr(FaultyStore, "short", request.param == "short")
    monkeypatch.setattr(FaultyStore, "every", 2)
    yield FaultyStore
    FaultyStore.store.clear()


def stored(name: str) -> str:
    """Put texts into a file of the store that fails; return its address."""
    texts_of, store = texts(60), MemoryFileSystem()
    table = pa.table({"text": texts_of})
    lines = "".join(f"{json.dumps({'text': text})}\n" for text in texts_of).encode()
    stream = io.BytesIO()
    if name.endswith("parquet"):
        parquet.write_table(table, stream, row_group_size=20)
    elif name.endswith("arrow"):
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
    else:
        pack = {"gz": gzip.compress, "zst": zstandard, "txt": lambda content: content}
        stream.write(pack[name.rpartition(".")[2]](lines))
    store.pipe_file(f"/corpus/{name}", stream.getvalue())
    return f"faulty://corpus/{name}"


FILES = ["a.parquet", "a.arrow", "a.jsonl.gz", "a.jsonl.zst", "a.txt"]


@pytest.mark.parametrize("name", FILES)
def test_a_store_that_breaks_off_is_asked_again_whatever_the_file(
    faulty_store: type[FaultyStore], name: str
) -> None:
    expected = texts(60)
    if name == "a.txt":
        expected = ["".join(f"{json.dumps({'text': text})}\n" for text in texts(60))]
    assert read(stored(name), 1) == expected
    assert faulty_store.answers


@pytest.mark.parametrize("name", FILES)
def test_a_store_that_stays_away_is_no_damage_of_its_files(
    faulty_store: type[FaultyStore], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = stored(name)
    monkeypatch.setattr(stored_files, "ASKED_FOR", 0.0)
    faulty_store.every = 1
    with pytest.raises(OSError, match="could not be read") as caught:
        read(path)
    assert caught.value.errno == errno.EIO


def test_a_damaged_file_of_a_store_is_named(faulty_store: type[FaultyStore]) -> None:
    for name in FILES[:4]:
        path = stored(name)
        content = MemoryFileSystem().cat_file(f"/corpus/{name}")
        MemoryFileSystem().pipe_file(f"/corpus/{name}", content[: len(content) // 2])
        with pytest.raises(DataError, match=f"{name} is damaged: "):
            read(path)
