"""Rows of documents: every token is learnt once, and documents know nothing of each other."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.data.dataset import IGNORE
from jobs.data.tokens.packing import CUT, WHOLE, TokenRows, check_masks
from jobs.data.tokens.shards import Shard, ShardWriter
from orchestrator.job import DataError

PAD = 0
DOCUMENTS = st.lists(st.integers(1, 11), min_size=1, max_size=12)


def shard_of(prefix: Path, documents: list[list[int]], kind: str = "<u2") -> Shard:
    with ShardWriter(prefix, np.dtype(kind)) as writer:
        for document in documents:
            writer.add(document)
    return Shard(str(prefix))


def numbered(lengths: list[int], begin: int) -> list[list[int]]:
    """Return documents of so many tokens, all of which differ."""
    ends = np.cumsum([begin, *lengths]).tolist()
    return [[*range(a, b)] for a, b in pairwise(ends)]


def rows_of(
    folder: Path, parts: list[list[int]], *, masks: bool = False, **how: object
) -> tuple[TokenRows, list[list[int]]]:
    """Return rows of documents in several shards, and the documents; odd tokens are learnt."""
    folder.mkdir(exist_ok=True)
    begin, documents, shards, masked = 1, [], [], []
    for number, lengths in enumerate(parts):
        own = numbered(lengths, begin)
        begin += sum(lengths)
        documents += own
        shards.append(shard_of(folder / f"{number}", own))
        masked.append(shard_of(folder / f"{number}.mask", [[t % 2 for t in d] for d in own], "u1"))
    options = {"sequence": 4, "packing": CUT, "apart": True, "pad": PAD, **how}
    return TokenRows(shards, masked if masks else None, **options), documents


@settings(max_examples=30)
@given(parts=st.lists(DOCUMENTS, min_size=1, max_size=3), sequence=st.integers(1, 9))
def test_rows_that_are_cut_learn_each_token_once(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], sequence: int
) -> None:
    rows, documents = rows_of(
        tmp_path_factory.mktemp("rows"), parts, sequence=sequence, apart=False
    )
    stream = [token for document in documents for token in document]
    batch = rows.read(torch.arange(len(rows)))
    count = len(rows) * sequence
    assert len(stream) - 1 - sequence < count <= len(stream) - 1
    assert batch.tokens[:, :-1].flatten().tolist() == stream[:count]
    assert batch.labels[:, 1:].flatten().tolist() == stream[1 : count + 1]
    assert batch.positions is None


@settings(max_examples=30)
@given(
    parts=st.lists(DOCUMENTS, min_size=1, max_size=3),
    sequence=st.integers(1, 9),
    packing=st.sampled_from([CUT, WHOLE]),
    masks=st.booleans(),
    apart=st.booleans(),
)
def test_positions_labels_and_counts_follow_from_the_documents(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[list[int]],
    sequence: int,
    packing: str,
    masks: bool,  # noqa: FBT001 - of hypothesis
    apart: bool,  # noqa: FBT001 - as above
) -> None:
    rows, documents = rows_of(
        tmp_path_factory.mktemp("rows"), parts, sequence=sequence, packing=packing, masks=masks,
        apart=apart,
    )  # fmt: skip
    place = {token: at for document in documents for at, token in enumerate(document)}
    if not len(rows):
        return
    every = torch.arange(len(rows))
    batch = rows.read(every)
    assert batch.real is not None
    for row, (tokens, labels, real) in enumerate(
        zip(batch.tokens.tolist(), batch.labels.tolist(), batch.real.tolist(), strict=True)
    ):
        for at, (token, label, is_real) in enumerate(zip(tokens, labels, real, strict=True)):
            begins = at == 0 or (is_real and place[token] == 0)
            learnt = is_real and not (apart and begins) and not (masks and token % 2 == 0)
            assert label == (token if learnt else IGNORE)
            if apart and is_real:
                position = int(batch.positions[row, at])
                assert position == (0 if begins else int(batch.positions[row, at - 1]) + 1)
    tokens, learnt = rows.counts(every, PAD)
    assert learnt == int((batch.labels[:, 1:] != IGNORE).sum())
    inputs = int(batch.real.sum()) - (len(rows) if packing == CUT else 0)
    assert tokens == inputs


@settings(max_examples=30)
@given(parts=st.lists(DOCUMENTS, min_size=1, max_size=3))
def test_whole_documents_are_not_cut(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]]
) -> None:
    rows, documents = rows_of(tmp_path_factory.mktemp("rows"), parts, packing=WHOLE, sequence=5)
    batch = rows.read(torch.arange(len(rows)))
    kept = [token for document in documents for token in document[:6]]
    assert batch.tokens[batch.real].tolist() == kept, "a longer one is cut off after a row"
    for tokens, real in zip(batch.tokens.tolist(), batch.real.tolist(), strict=True):
        assert real == sorted(real, reverse=True), "what fills up is at the end"
        assert tokens[0] in {document[0] for document in documents}


def test_what_fills_up_is_apart_from_what_is_before(tmp_path: Path) -> None:
    rows, _ = rows_of(tmp_path, [[3]], packing=WHOLE, sequence=5)
    batch = rows.read(torch.arange(1))
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 2]]


def test_a_row_is_read_without_the_others(tmp_path: Path) -> None:
    rows, _ = rows_of(tmp_path, [[7, 2, 5], [1, 9, 3]])
    every = rows.read(torch.arange(len(rows)))
    chosen = torch.tensor([4, 0, 3])
    some = rows.read(chosen)
    assert some.tokens.equal(every.tokens[chosen])
    assert some.labels.equal(every.labels[chosen])
    assert some.positions.equal(every.positions[chosen])


def test_a_row_that_is_not_there_is_refused(tmp_path: Path) -> None:
    rows, _ = rows_of(tmp_path, [[9]])
    with pytest.raises(IndexError, match="row 2 of 2"):
        rows.read(torch.tensor([2]))


def test_a_mask_of_other_documents_is_refused(tmp_path: Path) -> None:
    shard, mask = shard_of(tmp_path / "a", [[1, 2, 3]]), shard_of(tmp_path / "b", [[1, 1]], "u1")
    check_masks([shard], [shard_of(tmp_path / "c", [[1, 0, 1]], "u1")])
    with pytest.raises(DataError, match=r"b is no mask of .*a: their documents differ"):
        check_masks([shard], [mask])


def test_rows_of_whole_documents_take_8_bytes_each(tmp_path: Path) -> None:
    rows, _ = rows_of(tmp_path, [[4, 1, 9], [], [2, 2, 5]], packing=WHOLE)
    assert rows._firsts is not None
    assert rows._firsts.nbytes == 8 * len(rows)
    assert rows._firsts.tolist() == [0, 2, 3, 5]
