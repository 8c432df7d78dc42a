"""Rows a second of the data path, against `datasets`, a memory map and Megatron's way by hand.

All read the same rows of the same tokens in random order, 64 at a time, as tensors that a training
step takes: tokens and labels, and positions of documents where both make them. `datasets` has rows
of a fixed length, of which it makes tensors. Megatron's way is that of its `GPTDataset`: an order
of documents, places of samples in it, and pieces of the mapped file that are joined; then
positions that begin anew after each end of a document.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch

from jobs.data.tokens.packing import CUT, TokenRows
from jobs.data.tokens.shards import Shard, ShardWriter
from jobs.training.order import Order
from tests.benchmarks.table import Row, in_rounds

SEQUENCE, BATCH, BATCHES, ROUNDS = 1024, 64, 40, 7
DOCUMENTS, MEAN, VOCABULARY, END = 20_000, 800, 50_000, 0

Read = Callable[[np.ndarray[Any, Any]], object]


def rows() -> list[Row]:
    """Write 16 million tokens once, then read them in turns."""
    with TemporaryDirectory(prefix="bench-") as folder:
        shard = _write(Path(folder, "shard"))
        count = (shard.tokens - 1) // SEQUENCE
        order = Order(count, seed=1)
        apart, joined = (_ours(shard, apart=apart) for apart in (True, False))
        return [
            _row("datasets", joined, _datasets(shard, count, Path(folder, "arrow")), order),
            _row("a memory map by hand", joined, _memory_map(shard), order),
            _row("Megatron's way by hand, positions reset", apart, _Megatron(shard).read, order),
        ]


def _row(other: str, ours: Read, theirs: Read, order: Order) -> Row:
    rounds = [(_pace(ours, order), _pace(theirs, order)) for _ in range(ROUNDS)]
    own, others = zip(*rounds, strict=True)
    name = f"rows of {SEQUENCE:,} tokens, against {other}"
    return in_rounds(name, own, others, unit="rows/s", goal="ratio >= 1.0")


def _pace(read: Read, order: Order) -> float:
    began = perf_counter()
    for number in range(BATCHES):
        read(order.take(number * BATCH, BATCH).numpy())
    return BATCHES * BATCH / (perf_counter() - began)


def _write(prefix: Path) -> Shard:
    random = np.random.default_rng(0)
    with ShardWriter(prefix, np.dtype("<u2")) as writer:
        for length in random.integers(MEAN // 2, MEAN * 3 // 2, DOCUMENTS):
            document = random.integers(1, VOCABULARY, length)
            document[-1] = END
            writer.add(document)
    return Shard(str(prefix))


def _ours(shard: Shard, *, apart: bool) -> Read:
    source = TokenRows([shard], None, sequence=SEQUENCE, packing=CUT, apart=apart, pad=0)
    return lambda chosen: source.read(torch.from_numpy(chosen))


def _stream(shard: Shard) -> np.ndarray[Any, Any]:
    return np.memmap(f"{shard.name}.bin", dtype="<u2", mode="r")


def _datasets(shard: Shard, count: int, folder: Path) -> Read:
    from datasets import Dataset, disable_progress_bars, load_from_disk

    disable_progress_bars()
    stream = _stream(shard)

    def generate() -> Any:
        for row in range(count):
            begin = row * SEQUENCE
            yield {"input_ids": stream[begin : begin + SEQUENCE + 1].astype(np.int32)}

    Dataset.from_generator(generate, cache_dir=str(folder / "cache")).save_to_disk(folder / "data")
    table = load_from_disk(str(folder / "data")).with_format("torch")

    def read(chosen: np.ndarray[Any, Any]) -> object:
        tokens = table[chosen.tolist()]["input_ids"]
        return tokens, tokens.clone()

    return read


def _memory_map(shard: Shard) -> Read:
    stream = _stream(shard)

    def read(chosen: np.ndarray[Any, Any]) -> object:
        begins = (chosen * SEQUENCE).tolist()
        parts = [stream[begin : begin + SEQUENCE + 1].astype(np.int32) for begin in begins]
        tokens = torch.from_numpy(np.stack(parts))
        return tokens, tokens.clone()

    return read


class _Megatron:
    """Samples of documents in an order of their own, as three index arrays say."""

    def __init__(self, shard: Shard) -> None:
        self.stream, self.starts = _stream(shard), shard.starts
        self.lengths = np.diff(np.append(shard.starts, shard.tokens))
        self.documents = np.random.default_rng(1).permutation(len(self.lengths))
        ends = np.cumsum(self.lengths[self.documents])
        places = np.arange(0, int(ends[-1]), SEQUENCE)
        owners = np.searchsorted(ends, places, side="right")
        offsets = places - np.concatenate(([0], ends))[owners]
        self.samples = np.stack((owners, offsets), axis=1)

    def read(self, chosen: np.ndarray[Any, Any]) -> object:
        samples = [self._sample(int(number)) for number in chosen]
        return [torch.stack(column) for column in zip(*samples, strict=True)]

    def _sample(self, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        (first, offset), (last, end) = self.samples[number].tolist(), self.samples[number + 1]
        pieces = []
        for at in range(first, int(last) + 1):
            document = self.documents[at]
            start = int(self.starts[document])
            begin = start + (offset if at == first else 0)
            stop = start + (int(end) + 1 if at == last else int(self.lengths[document]))
            pieces.append(self.stream[begin:stop])
        tokens = torch.from_numpy(np.concatenate(pieces).astype(np.int64))
        inputs, labels = tokens[:-1].contiguous(), tokens[1:].contiguous()
        positions = torch.arange(len(inputs))
        before = 0
        for place in positions[inputs == END].tolist():
            positions[place + 1 :] -= place + 1 - before
            before = place + 1
        return inputs, labels, positions
