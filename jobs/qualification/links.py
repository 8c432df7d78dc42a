"""How fast each chip's links are: in pairs, and in the group of each node.

In a ring over all workers one slow link slows all alike, and nobody sees which it is. So workers
exchange in pairs: with those of their own node, and with those of other nodes that have their own
place there, whose traffic takes the same rail. There are at most 16 rounds of each kind, however
many workers there are. A worker whose links are all slow has a slow rail; else it is a link.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from jobs.qualification.bench import LIMITED, PASSED, TRAIN, Bench

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_GB = 1e9
_ONLY = (TRAIN,)
ROUNDS = 16  # of each kind, at most
_REPEATS = 3
_SLOWER, _OF_HOST = 1.5, 4.0  # so many times is slow: of a chip, of the host in its place
_LEAST_SECONDS = 0.05  # of the host: it is busy with others too
WITHIN, BETWEEN = "within a node", "between nodes"


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a worker is: its node's number, and its own among the workers there."""

    node: int
    local: int


@dataclass(frozen=True, slots=True)
class Link:
    """What an exchange between two workers took, as one of them saw it: GB/s."""

    kind: str
    rank: int
    other: int
    rate: float


def node_name() -> str:
    """Return what the workers of one machine have in common, and no others."""
    return _BOOT.read_text().strip() if _BOOT.exists() else socket.gethostname()


def spots(names: Sequence[str]) -> list[Spot]:
    """Return where each worker is, from the names of their nodes by rank."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    counts = dict.fromkeys(names, 0)
    placed = []
    for name in names:
        placed.append(Spot(numbers[name], counts[name]))
        counts[name] += 1
    return placed


def partners(rank: int, places: Sequence[Spot]) -> Iterator[tuple[str, int | None]]:
    """Yield whom worker `rank` exchanges with in each round; `None` is a round of rest.

    Round k pairs i with k - i, modulo how many there are: each with its own partner.
    """
    where = {place: number for number, place in enumerate(places)}
    mine = places[rank]
    here = 1 + max(place.local for place in places)
    nodes = 1 + max(place.node for place in places)
    for turn in range(min(here, ROUNDS)):
        other = where.get(Spot(mine.node, (turn - mine.local) % here))
        yield WITHIN, other if other != rank else None
    for turn in range(min(nodes, ROUNDS) if nodes > 1 else 0):
        other = where.get(Spot((turn - mine.node) % nodes, mine.local))
        yield BETWEEN, other if other != rank else None


def check_links(bench: Bench, names: Sequence[str] | None = None) -> None:
    """Measure the links of this worker; rank 0 says which are slow.

    `names` are those of the workers' nodes by rank, found out where they are not given.
    """
    places = spots(names or bench.group.gather(node_name()))
    links = [
        Link(kind, bench.ctx.rank, other, _exchange(bench, other))
        for kind, other in partners(bench.ctx.rank, places)
        if other is not None
    ]
    gathered = bench.group.gather(json.dumps([[x.kind, x.rank, x.other, x.rate] for x in links]))
    if bench.ctx.rank == 0:
        _say(bench, [Link(*values) for text in gathered for values in json.loads(text)])
    if any(place.node for place in places):
        _check_groups(bench, places)


def _exchange(bench: Bench, other: int) -> float:
    """Exchange with another worker, both ways at once; return GB/s each way."""
    count = (1 << 25) if bench.real else (1 << 16)
    given = torch.full((count,), float(bench.ctx.rank % 251), device=bench.device)
    out = torch.empty_like(given)
    _swap(given[:1], out[:1], other)  # both are here now
    bench.finish()
    began = time.perf_counter()
    for _ in range(_REPEATS):
        _swap(given, out, other)
    bench.finish()
    taken = (time.perf_counter() - began) / _REPEATS
    return given.nbytes / (taken if bench.real else max(taken, _LEAST_SECONDS)) / _GB


def _swap(given: torch.Tensor, out: torch.Tensor, other: int) -> None:
    both = [dist.P2POp(dist.isend, given, other), dist.P2POp(dist.irecv, out, other)]
    for work in dist.batch_isend_irecv(both):
        work.wait()


def _say(bench: Bench, links: Sequence[Link]) -> None:
    """Say of each kind of link how fast it is, and which are slow."""
    times = _SLOWER if bench.real else _OF_HOST
    for kind in dict.fromkeys(link.kind for link in links):
        mine = [link for link in links if link.kind == kind]
        slow = "; ".join(slow_ones(mine, times, pairs=bench.real))
        bench.say(
            "links",
            kind,
            LIMITED if slow else PASSED,
            figure=median(link.rate for link in mine),
            unit="GB/s",
            note=slow,
            roles=_ONLY,
        )


def slow_ones(links: Sequence[Link], times: float, *, pairs: bool) -> Iterator[str]:
    """Yield workers all of whose links are so many times slower than good ones, then pairs."""
    good = sorted(link.rate for link in links)[3 * len(links) // 4]
    by_rank: dict[int, list[float]] = {}
    for link in links:
        for rank in (link.rank, link.other):
            by_rank.setdefault(rank, []).append(link.rate)
    slow = {rank for rank, rates in by_rank.items() if median(rates) * times < good}
    for rank in sorted(slow):
        yield f"rank {rank}: {median(by_rank[rank]):.3g} GB/s, {good:.3g} GB/s is usual"
    for pair, rate in sorted(_worst(links).items()) if pairs else ():
        if rate * times < good and not slow & set(pair):
            yield f"ranks {pair[0]} and {pair[1]}: {rate:.3g} GB/s, {good:.3g} GB/s is usual"


def _worst(links: Iterable[Link]) -> Mapping[tuple[int, int], float]:
    rates: dict[tuple[int, int], float] = {}
    for link in links:
        pair = (min(link.rank, link.other), max(link.rank, link.other))
        rates[pair] = min(link.rate, rates.get(pair, link.rate))
    return rates


def _check_groups(bench: Bench, places: Sequence[Spot]) -> None:
    """Sum within each node by itself: a node whose own links are slow stands out."""
    mine = places[bench.ctx.rank].node
    ranks = [rank for rank, place in enumerate(places) if place.node == mine]
    if len(ranks) == 1:
        return
    group: Any = dist.new_group(ranks, use_local_synchronization=True)
    values = torch.ones((1 << 26) if bench.real else (1 << 16), device=bench.device)
    wanted = torch.full_like(values, float(len(ranks)))

    def act() -> None:
        values.fill_(1.0)
        dist.all_reduce(values, group=group)

    taken = bench.seconds(act, repeats=_REPEATS)
    right = torch.equal(values, wanted)
    bench.say(
        "links",
        "all-reduce of a node",
        PASSED if right else LIMITED,
        figure=2 * values.nbytes / (taken if bench.real else max(taken, _LEAST_SECONDS)) / _GB,
        unit="GB/s",
        note="" if right else "the sum is wrong",
        spread=_SLOWER if bench.real else _OF_HOST,
        roles=_ONLY,
    )
