from __future__ import annotations

from pathlib import Path

import pytest

from jobs.data.dataset import TOKENIZER_NAME, read_examples, read_facts, read_rows
from jobs.data.shakespeare import content_key, prepare
from jobs.data.splits import SPLITS
from jobs.data.tokenizer import load_tokenizer
from tests.jobs.local_context import LocalContext


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> LocalContext:
    ctx = LocalContext(folder=tmp_path_factory.mktemp("plays"))
    prepare(ctx, works=3, width=64, validation=0.1, test=0.1, vocab_size=400)
    return ctx


def test_no_scene_is_in_two_splits(plays: LocalContext) -> None:
    scenes = [{content_key(item) for item in read_examples(plays.output, s)} for s in SPLITS]

    assert all(scenes)
    assert not scenes[0] & scenes[1]
    assert not scenes[0] & scenes[2]
    assert not scenes[1] & scenes[2]


def test_every_token_of_a_text_is_learnt(plays: LocalContext) -> None:
    rows = read_rows(plays.output, "test")

    assert rows.tokens.shape[1] == 64
    assert rows.labels.equal(rows.tokens)
    assert read_facts(plays.output).task is None


def test_rows_read_as_the_text_that_they_were_cut_from(plays: LocalContext) -> None:
    tokenizer = load_tokenizer(plays.output / TOKENIZER_NAME)
    text = tokenizer.decode(read_rows(plays.output, "test").tokens[0].tolist())

    assert read_examples(plays.output, "test")[0]["text"].startswith(text)


def test_scenes_too_few_for_a_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hold out more scenes"):
        prepare(LocalContext(folder=tmp_path), works=1, test=0.0, vocab_size=300)
