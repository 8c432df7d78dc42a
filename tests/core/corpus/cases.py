"""The texts in the corpus's JSON form, and what is right for each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.core.failures.exceptions import Raised
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.failures.log_excerpt import Excerpt
from orchestrator.core.failures.python_errors import bases

# What a case may call a kind that has become finer since.
COARSER: Mapping[FailureKind, frozenset[str]] = {
    FailureKind.STORAGE: frozenset({"data", "software"}),
    FailureKind.SET_UP: frozenset({"software"}),
    FailureKind.HOST_MEMORY: frozenset({"out_of_memory"}),
}
# `shared` is given; `field`, `trackers` and `reports` are of public reports, `sources` of what
# packages and runtimes raise, `makers` of makers' own pages, `systems` of kernels, hosts and
# programs, `jobs` of users' mistakes.
FILES = sorted(file.stem for file in Path(__file__).parent.glob("*.json"))


@cache
def cases(file: str) -> list[dict[str, Any]]:
    """Return the cases of a file."""
    found: list[dict[str, Any]] = json.loads((Path(__file__).parent / f"{file}.json").read_text())
    return found


def excerpt(case: Mapping[str, Any]) -> Excerpt:
    """Return what the worker of a case left behind."""
    lines = tuple(part for line in case["lines"] for part in line.splitlines() or [""])
    if case["as"] == "line":
        return Excerpt(lines)
    return Excerpt(lines, (Raised(bases(case["type"]), case["message"]),))


def is_right(kind: FailureKind, case: Mapping[str, Any]) -> bool:
    """Whether `kind` is what is expected of `case`, or a finer kind of that."""
    return bool({str(kind), *COARSER.get(kind, ())} & set(case["expected"]))


def confusion(told: list[tuple[FailureKind, dict[str, Any]]]) -> str:
    """Return a table: what is right first, what was told, how often."""
    pairs = Counter(
        (str(kind) if is_right(kind, case) else case["expected"][0], str(kind))
        for kind, case in told
    )
    rows = (f"{right:>22} -> {kind:<22} {n}" for (right, kind), n in sorted(pairs.items()))
    return "\n".join(rows)
