"""What becomes of documents and chats, and which sources are refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.data.dataset import IGNORE, read_facts
from jobs.data.splits import split_of
from jobs.data.tokenizer import encode_chats, load_tokenizer
from jobs.data.tokens.shards import Shard
from jobs.data.tokens.stored_files import read_spans
from jobs.data.tokens.token_folder import open_folder
from jobs.data.tokens.training_data import RowsConfig, open_rows
from orchestrator.job import DataError
from tests.jobs.data.tokens.corpora import chats, prepared, texts, write_records, write_tokenizer


def contents(shards: list[Shard]) -> list[list[int]]:
    """Return the documents of shards."""
    documents = []
    for shard in shards:
        edges = [*shard.starts.tolist(), shard.tokens]
        spans = [shard.span(a, b) for a, b in pairwise(edges)]
        documents += [content.view(shard.type).tolist() for content in read_spans(spans)]
    return documents


def test_documents_are_whole_end_and_are_in_one_split(tokens: Path, tokenizer: Path) -> None:
    folder, words = open_folder(str(tokens)), load_tokenizer(tokenizer)
    shares = {"validation": 0.1, "test": 0.0}
    for split in ("train", "validation", "test"):
        documents = contents(folder.shards(split))
        expected = [t for t in texts(300) if split_of(t, seed=7, **shares) == split]
        assert [words.decode(tokens[:-1]) for tokens in documents] == expected
        assert {tokens[-1] for tokens in documents} <= {words.eos_token_id}
    assert len(folder.shards("train")) > 2
    assert (folder.description.type, folder.description.masked) == ("uint16", False)
    assert read_facts(tokens).kind == "tokens"


def test_of_chats_the_answers_alone_are_learnt_in_every_turn(
    tmp_path: Path, tokenizer: Path
) -> None:
    records = [{"messages": chat} for chat in chats(20)]
    source = write_records(tmp_path / "chats.jsonl", records)
    data = prepared(tmp_path, tokenizer, source, messages="messages", validation=0.0, part_mb=1.0)
    encoded = encode_chats(load_tokenizer(tokenizer), chats(20))
    rows = open_rows(data, "train", RowsConfig(sequence=255))
    batch = rows.read(torch.arange(len(rows)))
    assert batch.real is not None
    assert batch.tokens[batch.real].tolist() == [t for tokens, _ in encoded for t in tokens]
    learnt = (batch.labels != IGNORE)[batch.real].tolist()
    # Nothing is learnt of a first token, which is that of a question anyway.
    assert learnt == [is_learnt for _, mask in encoded for is_learnt in mask]
    assert 0.1 < sum(learnt) / len(learnt) < 0.9
    assert len(rows) < 20, "several chats share a row"


@pytest.mark.parametrize(
    ("records", "params", "message"),
    [
        ([], {}, r"corpus.jsonl has no document to train on"),
        ([{"text": ""}], {}, "has no document to train on"),
        ([{"content": "a"}], {}, r"corpus.jsonl: a record has no 'text', but \['content'\]"),
        ([{"text": 5}], {}, r"corpus.jsonl: 'text' of a record is no text: 5"),
        (
            [{"messages": "hello"}],
            {"messages": "messages"},
            r"corpus.jsonl: 'messages' of a record is no list of messages: 'hello'",
        ),
        (
            [{"messages": [{"role": "user"}]}],
            {"messages": "messages"},
            r"corpus.jsonl: a message of 'messages' has no role and content: \{'role': 'user'\}",
        ),
    ],
)
def test_what_is_no_document_is_refused(
    tmp_path: Path, tokenizer: Path, records: list[Any], params: dict[str, Any], message: str
) -> None:
    source = write_records(tmp_path / "corpus.jsonl", records)
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, tokenizer, source, **params)


def test_shares_that_leave_nothing_are_refused(
    tmp_path: Path, tokenizer: Path, corpus: Path
) -> None:
    with pytest.raises(ValueError, match="leave nothing to train on"):
        prepared(tmp_path, tokenizer, corpus, validation=1.0)


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path, corpus: Path) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer")
    words = load_tokenizer(folder)
    words.eos_token = None
    words.save_pretrained(folder)
    with pytest.raises(ValueError, match="has no eos_token"):
        prepared(tmp_path, folder, corpus)
