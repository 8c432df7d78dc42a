"""What each chip's links carry, and how fast: in pairs, and in the group of each node.

Random bits travel over each link, and each has to arrive.

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
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from jobs.qualification.bench import FAILED, LIMITED, PASSED, TRAIN, Bench
from jobs.qualification.patterns import Pattern, pattern, same_bits

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
    """An exchange between two workers, as one of them saw it.

    Attributes:
        kind: Of the link.
        rank: The worker that saw it.
        other: Whom it exchanged with.
        rate: GB/s each way.
        wrong: How often other bits came than were sent.
    """

    kind: str
    rank: int
    other: int
    rate: float
    wrong: int = 0


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
    tables = pattern(bench.ctx.world_size, torch.float32, bench.device, bench.ctx.seed)
    links = [
        Link(kind, bench.ctx.rank, other, *_exchange(bench, tables, other))
        for kind, other in partners(bench.ctx.rank, places)
        if other is not None
    ]
    gathered = bench.group.gather(json.dumps([astuple(link) for link in links]))
    if bench.ctx.rank == 0:
        _say(bench, [Link(*values) for text in gathered for values in json.loads(text)])
    if any(place.node for place in places):
        _check_groups(bench, places)


def _exchange(bench: Bench, tables: Pattern, other: int) -> tuple[float, int]:
    """Exchange random bits with another worker, both ways at once.

    Return GB/s each way, and how often other bits came than were sent.
    """
    count = (1 << 25) if bench.real else (1 << 16)
    given, wanted = (tables.bits(rank, count) for rank in (bench.ctx.rank, other))
    out = torch.empty_like(given)
    _swap(given[:1], out[:1], other)  # both are here now
    taken, wrong = 0.0, 0
    for _ in range(_REPEATS):
        out.zero_()
        bench.finish()
        began = time.perf_counter()
        _swap(given, out, other)
        bench.finish()
        taken += (time.perf_counter() - began) / _REPEATS
        wrong += not same_bits(out, wanted)
    return given.nbytes / (taken if bench.real else max(taken, _LEAST_SECONDS)) / _GB, wrong


def _swap(payload: torch.Tensor, out: torch.Tensor, other: int) -> None:
    both = [dist.P2POp(dist.isend, payload, other), dist.P2POp(dist.irecv, out, other)]
    for work in dist.batch_isend_irecv(both):
        work.wait()


def _say(bench: Bench, links: Sequence[Link]) -> None:
    """Say of each kind of link how fast it is, and which are wrong or slow."""
    times = _SLOWER if bench.real else _OF_HOST
    for kind in dict.fromkeys(link.kind for link in links):
        mine = [link for link in links if link.kind == kind]
        wrong = "; ".join(wrong_ones(mine))
        slow = "; ".join(slow_ones(mine, times, pairs=bench.real))
        bench.say(
            "links",
            kind,
            FAILED if wrong else LIMITED if slow else PASSED,
            figure=median(link.rate for link in mine),
            unit="GB/s",
            note=wrong or slow,
            roles=_ONLY,
        )


def wrong_ones(links: Sequence[Link]) -> Iterator[str]:
    """Yield the workers that other bits came to than were sent, and from whom."""
    for link in sorted(links, key=lambda link: (link.rank, link.other)):
        if link.wrong:
            yield (
                f"rank {link.rank} got other bits than rank {link.other} sent in {link.wrong} of "
                f"{_REPEATS} exchanges"
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
    """Sum within each node by itself: a node whose own links are wrong or slow stands out."""
    mine = places[bench.ctx.rank].node
    ranks = [rank for rank, place in enumerate(places) if place.node == mine]
    if len(ranks) == 1:
        return
    group: Any = dist.new_group(ranks, use_local_synchronization=True)
    tables = pattern(len(ranks), torch.float32, bench.device, bench.ctx.seed)
    count = (1 << 26) if bench.real else (1 << 16)
    given, wanted = tables.of(ranks.index(bench.ctx.rank), count), tables.total(count)
    values, taken, wrong = torch.empty_like(given), [], 0
    for _ in range(1 + _REPEATS):
        values.copy_(given)
        bench.finish()
        began = time.perf_counter()
        dist.all_reduce(values, group=group)
        bench.finish()
        taken.append(time.perf_counter() - began)
        wrong += not torch.equal(values, wanted)
    seconds = median(taken[1:])
    bench.say(
        "links",
        "all-reduce of a node",
        FAILED if wrong else PASSED,
        figure=2 * values.nbytes / (seconds if bench.real else max(seconds, _LEAST_SECONDS)) / _GB,
        unit="GB/s",
        note=f"wrong in {wrong} of {1 + _REPEATS} repeats" if wrong else "",
        spread=_SLOWER if bench.real else _OF_HOST,
        roles=_ONLY,
    )
