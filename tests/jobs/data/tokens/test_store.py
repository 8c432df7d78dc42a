"""Sources and tokens in a bucket are read in parts, however the store behaves."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch

from jobs.data.tokenizer import load_tokenizer
from jobs.data.tokens import stored_files
from jobs.data.tokens.sources import documents_of, parts_of
from jobs.data.tokens.training_data import open_training, rows_config, tokenizer_folder
from jobs.pretraining import pretrain
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.job import DataError
from orchestrator.worker.exception_report import describe
from tests.build import documented
from tests.jobs.data.tokens.corpora import RECIPE, texts
from tests.jobs.local_context import LocalContext
from tests.s3 import FaultyProxy, S3Server, faulty, s3_server

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def proxy(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with faulty(server) as standing:
        settings = {**server.settings(url=standing.url), "use_listings_cache": False}
        monkeypatch.setitem(fsspec.config.conf, "s3", settings)
        yield standing


@pytest.fixture(scope="module")
def bucket(server: S3Server, tokens: Path, corpus: Path) -> str:
    """A bucket with the corpus and its tokens."""
    name, files = server.bucket(), server.files()
    files.put(str(tokens), f"{name}/tokens", recursive=True)
    files.put(str(corpus), f"{name}/corpus/corpus.jsonl")
    return f"s3://{name}"


def mixture(bucket: str) -> dict[str, object]:
    return {**RECIPE["rows"], "mixture": {f"{bucket}/tokens": 1.0}}


def test_a_part_of_a_file_is_read_and_nothing_else(proxy: FaultyProxy, bucket: str) -> None:
    parts = parts_of([f"{bucket}/corpus"], size=4000, lines=False)
    assert len(parts) > 4
    proxy.ranges.clear()
    records = [record["text"] for record in documents_of(parts[1], "text")]
    begin = texts(300).index(records[0])
    assert records == texts(300)[begin : begin + len(records)]
    (first, *rest) = proxy.ranges
    assert first == (parts[1].begin - 1, parts[1].end)
    assert [span[0] for span in rest] == [parts[1].end], "the rest of its last line"


def test_a_training_reads_its_rows_where_they_lie(
    proxy: FaultyProxy, bucket: str, tmp_path: Path, tokens: Path
) -> None:
    recipe = {**RECIPE, "steps": 3, "validate_every": 0, "checkpoint_every": 0}
    here = LocalContext(folder=tmp_path / "here", inputs={"data": tokens})
    pretrain(here, **recipe)
    there = LocalContext(folder=tmp_path / "there")
    pretrain(there, **{**recipe, "rows": mixture(bucket)})
    assert there.series("train/loss") == here.series("train/loss")
    rows = RECIPE["rows"]["sequence"] + 1
    assert proxy.ranges
    assert max(end - begin for begin, end in proxy.ranges) <= 2 * rows


def test_a_store_that_fails_for_a_while_is_asked_again(
    proxy: FaultyProxy, bucket: str, tmp_path: Path
) -> None:
    rows = opened(tmp_path, bucket)
    proxy.refuse(400, "RequestTimeout", times=2)
    assert len(rows.read(torch.arange(3))) == 3
    assert proxy.times == 0


def test_a_store_that_stays_away_is_a_failure_of_the_storage(
    proxy: FaultyProxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = opened(tmp_path, bucket)
    monkeypatch.setattr(stored_files, "ASKED_FOR", 0.1)
    proxy.refuse(400, "RequestTimeout")
    with pytest.raises(OSError, match=r"train-0000\d.bin could not be read: ") as caught:
        rows.read(torch.arange(3))
    report = describe(caught.value, documented())
    assert (caught.value.errno, report.kind) == (errno.EIO, FailureKind.STORAGE)


def test_tokens_that_are_not_there_are_named(
    proxy: FaultyProxy, bucket: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"s3://.*/other/tokens.json is missing"):
        opened(tmp_path, bucket, "other")


def opened(folder: Path, bucket: str, name: str = "tokens") -> object:
    ctx = LocalContext(folder=folder)
    config = rows_config({"sequence": 32, "mixture": {f"{bucket}/{name}": 1.0}})
    with tokenizer_folder(ctx, config) as place:
        return open_training(ctx, config, 8, load_tokenizer(place)).rows
