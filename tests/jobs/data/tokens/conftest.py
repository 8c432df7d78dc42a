"""A tokenizer, and tokens of a few hundred texts, for all tests of tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.data.tokens import corpora


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpora.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [{"text": text} for text in corpora.texts(300)]
    return corpora.write_records(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", records)


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path, corpus: Path) -> Path:
    return corpora.prepared(tmp_path_factory.mktemp("tokens"), tokenizer, corpus)
