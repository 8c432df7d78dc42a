"""Of a folder that has splits one is read, by the names that `datasets` knows them by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from jobs.data.dataset import read_facts
from jobs.data.tokens.source_splits import splits_of
from jobs.data.tokens.sources import documents_of, parts_of
from orchestrator.job import DataError
from tests.jobs.data.tokens.corpora import prepared, texts, write_records

FOLDERS = {
    "shards": ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"],
    "shards of other splits": ["data/web-00000-of-00001.jsonl", "data/x.2-00000-of-00001-a.jsonl"],
    "shards go before words": ["data/train-00000-of-00001.jsonl", "test/a.jsonl", "dev.jsonl"],
    "folders": ["train/a.jsonl", "my-val 2/b.jsonl", "eval/deep/c.jsonl", "other/d.jsonl"],
    "folders go before files": ["training/a.jsonl", "b/test.jsonl", "valid.jsonl"],
    "files": ["train.jsonl", "x_dev.jsonl", "x/testing-1.jsonl", "y.jsonl", "0train0.jsonl"],
    "no words": ["trains.jsonl", "retest.jsonl", "devel/a.jsonl", "Train.jsonl", "a.train"],
    "two words": ["train_test.jsonl", "b.jsonl"],
}


def fill(folder: Path, names: Sequence[str]) -> Path:
    for number, name in enumerate(names):
        write_records(folder / name, [{"text": text} for text in texts(3, 10 * number)])
    return folder


def read(folder: Path, split: str = "train", tell: list[str] | None = None) -> list[str]:
    said: list[str] = [] if tell is None else tell
    parts = parts_of([str(folder)], size=10**6, lines=False, split=split, tell=said.append)
    return [record["text"] for part in parts for record in documents_of(part, "text")]


@pytest.mark.parametrize("names", FOLDERS.values(), ids=FOLDERS)
def test_files_are_of_the_splits_that_datasets_says(tmp_path: Path, names: list[str]) -> None:
    data_files = pytest.importorskip("datasets.data_files")
    folder = fill(tmp_path / "corpus", names)
    patterns = data_files.get_data_patterns(str(folder))
    judged = data_files.DataFilesDict.from_patterns(patterns, base_path=str(folder))
    expected = {
        str(split): sorted(str(Path(file).relative_to(folder)) for file in files)
        for split, files in judged.items()
    }
    ours = {split: sorted(files) for split, files in splits_of(sorted(names)).items()}
    assert ours == expected or (not ours and expected == {"train": sorted(names)})


def test_the_training_split_is_read_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    for number, name in enumerate(["train-00000-of-00001", "test-00000-of-00001"]):
        table = pa.table({"text": texts(5, 5 * number)})
        (tmp_path / "data").mkdir(exist_ok=True)
        parquet.write_table(table, tmp_path / "data" / f"{name}.parquet")
    said: list[str] = []
    assert read(tmp_path, tell=said) == texts(5)
    (line,) = said
    assert line.startswith(f"{tmp_path}: 1 files of split 'train' are read, 1 others are not; ")
    assert read(tmp_path, "test") == texts(5, 5)
    assert sorted(read(tmp_path, "all")) == sorted(texts(10))
    with pytest.raises(DataError, match=r"no split 'dev': files name 'test', 'train'; 'all' is"):
        read(tmp_path, "dev")
    assert len(read(tmp_path / "data" / "*.parquet")) == 10, "a pattern says itself what is read"


def test_a_folder_whose_files_name_no_split_is_all_to_train_on(tmp_path: Path) -> None:
    said: list[str] = []
    assert read(fill(tmp_path, ["a.jsonl", "b.jsonl"]), tell=said) == [*texts(3), *texts(3, 10)]
    assert said == []
    with pytest.raises(DataError, match=r"has no split 'test': no file names any; 'all' is every"):
        read(tmp_path, "test")


def test_of_a_dict_that_datasets_has_saved_one_split_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    splits = {"train": texts(4), "test": texts(4, 10), "matched": texts(4, 20)}
    saved = datasets.DatasetDict(
        {name: datasets.Dataset.from_dict({"text": rows}) for name, rows in splits.items()}
    )
    saved.save_to_disk(tmp_path)
    assert {name: read(tmp_path, name) for name in splits} == splits


def test_what_is_prepared_is_of_the_split_that_is_asked_for(
    tmp_path: Path, tokenizer: Path
) -> None:
    source = fill(tmp_path / "corpus", ["train.jsonl", "test.jsonl"])
    folders = [
        prepared(tmp_path / split, tokenizer, source, split=split, validation=0.0)
        for split in ("train", "test", "all")
    ]
    facts = [read_facts(folder).parameters for folder in folders]
    assert [(fact["split"], fact["parts"]) for fact in facts] == [
        ("train", 1),
        ("test", 1),
        ("all", 2),
    ]
