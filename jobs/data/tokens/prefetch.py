"""Rows that threads read while a step computes.

Who trains says which rows it will ask for. Where they come from a store that takes long, the step
waits: this is told every half a minute, and is no hang. One that gives nothing for ten minutes
ends the attempt by its storage.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from time import perf_counter
from typing import TypeVar

import torch

from jobs.data.dataset import RowBatch, RowSource
from orchestrator.job import JobContext

T = TypeVar("T")

TOLD_AFTER = 30.0  # seconds
LONGEST = 600.0
_AT_ONCE = 1.0  # a wait that nobody is told of


class PrefetchedRows:
    """The rows of a source, of which those that are expected are read beforehand.

    Attributes:
        waited: Seconds that reading has kept others waiting.
    """

    def __init__(
        self,
        ctx: JobContext,
        source: RowSource,
        *,
        told_after: float = TOLD_AFTER,
        longest: float = LONGEST,
    ) -> None:
        """Read from `source`; say on `ctx` when it takes long."""
        self._ctx, self._source = ctx, source
        self._told_after, self._longest = told_after, longest
        self._batches: dict[bytes, Future[RowBatch]] = {}
        self._counts: dict[bytes, Future[tuple[int, int]]] = {}
        self.waited = 0.0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._source)

    @property
    def width(self) -> int:
        """Tokens of a row."""
        return self._source.width

    @property
    def reads_to_count(self) -> bool:
        """Whether the source reads anything to count."""
        return self._source.reads_to_count

    def expect(self, counted: torch.Tensor, share: torch.Tensor, pad: int) -> None:
        """Begin to count the rows `counted`, and to read `share`, this worker's of a batch."""
        key = _key(counted)
        if key not in self._counts:
            self._counts[key] = _begin(lambda: self._source.counts(counted, pad))
            self._batches[_key(share)] = _begin(lambda: self._source.read(share))

    def read(self, part: torch.Tensor) -> RowBatch:
        """Return some rows.

        Raises:
            OSError: The store has given nothing for ten minutes (`ETIME`), or failed.
        """
        future = self._batches.pop(_key(part), None)
        return self._awaited(future or _begin(lambda: self._source.read(part)))

    def counts(self, part: torch.Tensor, pad: int) -> tuple[int, int]:
        """Return how many tokens some rows have, and how many labels."""
        future = self._counts.pop(_key(part), None)
        return self._awaited(future or _begin(lambda: self._source.counts(part, pad)))

    def _awaited(self, future: Future[T]) -> T:
        began = perf_counter()
        try:
            if not wait([future], min(_AT_ONCE, self._told_after)).done:
                with self._ctx.busy("waiting for rows"):
                    while not wait([future], self._told_after).done:
                        self._tell(perf_counter() - began)
            return future.result()
        finally:
            self.waited += perf_counter() - began

    def _tell(self, seconds: float) -> None:
        what = f"rows have not come for {seconds:.0f} s: the store that they lie in is slow"
        self._ctx.log(what)
        if seconds >= self._longest:
            raise OSError(errno.ETIME, what)


def _begin(act: Callable[[], T]) -> Future[T]:
    """Do something in a thread of its own, which no end of the process waits for."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(act())
        except BaseException as error:  # noqa: BLE001 - border: raised where it is waited for
            future.set_exception(error)

    Thread(target=run, name="rows", daemon=True).start()
    return future


def _key(rows: torch.Tensor) -> bytes:
    content: bytes = rows.numpy().tobytes()
    return content
