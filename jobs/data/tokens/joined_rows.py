"""Rows of several data sets as those of one, numbered through one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from jobs.data.dataset import RowBatch, RowSource


class JoinedRows:
    """The rows of `sources`, all of one width."""

    def __init__(self, sources: Sequence[RowSource]) -> None:
        """Number the rows through."""
        self._sources = sources
        sizes = torch.tensor([len(source) for source in sources])
        self._begins = torch.cat((torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)))

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._begins[-1])

    @property
    def width(self) -> int:
        """Tokens of a row."""
        return self._sources[0].width

    @property
    def reads_to_count(self) -> bool:
        """Whether a source reads anything to count."""
        return any(source.reads_to_count for source in self._sources)

    def read(self, part: torch.Tensor) -> RowBatch:
        """Read some rows, each of its source."""
        batches, places = [], []
        for source, here in self._by_source(part):
            batches.append(self._sources[source].read(part[here] - self._begins[source]))
            places.append(here)
        return RowBatch.joined(batches)[torch.cat(places).argsort()]

    def counts(self, part: torch.Tensor, pad: int) -> tuple[int, int]:
        """Return how many tokens some rows have, and how many labels."""
        counts = [
            self._sources[source].counts(part[here] - self._begins[source], pad)
            for source, here in self._by_source(part)
        ]
        return sum(tokens for tokens, _ in counts), sum(learnt for _, learnt in counts)

    def _by_source(self, part: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
        """Return which of `part` are of each source that has any."""
        owners = torch.bucketize(part, self._begins, right=True) - 1
        return [(int(n), (owners == n).nonzero().flatten()) for n in torch.unique(owners)]


class ChosenRows:
    """Some rows of a source, by their numbers there."""

    def __init__(self, source: RowSource, numbers: torch.Tensor) -> None:
        """Take the rows `numbers` of `source`."""
        self._source, self._numbers = source, numbers

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._numbers)

    @property
    def width(self) -> int:
        """Tokens of a row."""
        return self._source.width

    @property
    def reads_to_count(self) -> bool:
        """Whether the source reads anything to count."""
        return self._source.reads_to_count

    def read(self, part: torch.Tensor) -> RowBatch:
        """Read some rows."""
        return self._source.read(self._numbers[part])

    def counts(self, part: torch.Tensor, pad: int) -> tuple[int, int]:
        """Return how many tokens some rows have, and how many labels."""
        return self._source.counts(self._numbers[part], pad)
