"""What all three train: a Llama of a size, on rows of the same shard of tokens."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

RATE, DECAY, BETA2, CLIP = 1e-3, 0.1, 0.95, 1.0
SAVES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A model, and what is trained: `steps` in all, of which the first `warm` do not count."""

    width: int
    inner: int
    layers: int
    heads: int
    vocabulary: int
    rows: int
    sequence: int
    steps: int
    warm: int = 3

    @property
    def tokens(self) -> int:
        """Tokens of all steps that count, of both workers."""
        return (self.steps - self.warm) * 2 * self.rows * self.sequence

    @property
    def llama(self) -> dict[str, int | bool]:
        """The fields of transformers' config."""
        return {
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": False,
        }


SIZES = {
    "tiny": Size(
        width=256, inner=768, layers=6, heads=16, vocabulary=2048, rows=4, sequence=256, steps=13
    ),
    "125M": Size(
        width=768,
        inner=2048,
        layers=12,
        heads=12,
        vocabulary=26_000,
        rows=1,
        sequence=256,
        steps=8,
    ),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """What a worker took: seconds of the steps that count, and bytes that it held at the most.

    `stall` is for how many seconds training stood still for a checkpoint, where some were saved.
    """

    seconds: float
    peak: int
    stall: float = 0.0

    def tell(self) -> None:
        """Print it."""
        print(json.dumps(asdict(self)), flush=True)


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a worker took to go on from a checkpoint: seconds, and those of DCP by hand.

    `brought` are the bytes of the parts that came to its node, of those of the `checkpoint`.
    """

    seconds: float
    by_hand: float
    brought: int
    checkpoint: int

    def tell(self) -> None:
        """Print it."""
        print(json.dumps(asdict(self)), flush=True)


class Steps:
    """Counts the steps of a size, and times those that count."""

    def __init__(self, size: Size) -> None:
        """Begin before the first one."""
        self._size, self._done, self._since = size, 0, 0.0

    def done(self) -> None:
        """Note the end of a step."""
        self._done += 1
        if self._done == self._size.warm:
            self._since = perf_counter()
        elif self._done == self._size.steps:
            Measured(perf_counter() - self._since, peak_bytes()).tell()


def peak_bytes() -> int:
    """Return how many bytes of memory this process has held at the most (Linux: VmHWM)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0
