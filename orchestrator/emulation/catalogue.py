"""The documented errors of the makers, read once from `catalogue.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

Place = Literal["operator", "collective"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentedError:
    """An error as its maker's software reports it.

    Attributes:
        text: What the exception says; `{time}`, `{pid}`, `{device}` and `{rank}` are filled in.
        where: What raises it.
        source: Where it is documented, or was reported.
    """

    text: str
    source: str
    where: Place = "operator"

    def fill(self, *, time: str, pid: int, device: int, rank: int) -> str:
        """Return the text for one place and time."""
        return self.text.rstrip().format(time=time, pid=pid, device=device, rank=rank)


@cache
def catalogue() -> Mapping[str, DocumentedError]:
    """Return all signatures by name."""
    text = Path(__file__).with_suffix(".yaml").read_text("utf-8")
    return {name: DocumentedError(**facts) for name, facts in yaml.safe_load(text).items()}
