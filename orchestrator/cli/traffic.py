"""`orchestrator traffic ENDPOINT r1=90 r2=10`: share the traffic between revisions."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from orchestrator.cli.endpoints import show
from orchestrator.cli.steps import Step
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.service import endpoints

_SHARE = re.compile(r"r(\d+)=(\d+)")
_BESIDE = re.compile(r"(?:(shadow)|(overflow))=(?:r(\d+)|none)")
HOW = (
    "write r1=90 r2=10; shadow=r3 sends copies, overflow=r4 what finds no room, "
    "and =none ends either"
)


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Move the traffic of an endpoint."""
    shares, beside = parsed(args.shares)
    change = endpoints.traffic(args.endpoint, shares, **beside)
    return [Step.of(change, lambda _: show(endpoints.endpoints(args.endpoint)))]


def parsed(arguments: Iterable[str]) -> tuple[dict[int, int], endpoints.Beside]:
    """Return the shares that `r1=90 shadow=r3 overflow=none` tells, and who gets requests beside.

    Raises:
        ConfigError: A word is no share.
    """
    words = [word for argument in arguments for word in argument.split(",") if word]
    shares: dict[int, int] = {}
    beside = endpoints.Beside()
    for word in words:
        share, other = _SHARE.fullmatch(word), _BESIDE.fullmatch(word)
        if share:
            shares[int(share[1])] = int(share[2])
        elif other:
            kind: Literal["shadow", "overflow"] = "shadow" if other[1] else "overflow"
            beside[kind] = int(other[3]) if other[3] else None
        else:
            raise ConfigError([Problem("traffic", f"{' '.join(words)!r} are no shares", HOW)])
    return shares, beside
