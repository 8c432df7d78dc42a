"""A database in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from orchestrator.core.errors import NotFoundError, StaleControllerError, StoreError
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import Event
from orchestrator.core.trust.qualification import Verdict
from orchestrator.messages import (
    Busy,
    Lease,
    Points,
    Progress,
    Queued,
    Succeeded,
    Untold,
    UnusedNode,
)
from orchestrator.ports import Curve, LogChunk, Point, Stored


@dataclass
class MemoryStore:
    """A database that forgets at the end of the test."""

    headers: dict[str, RunHeader] = field(default_factory=dict)
    log: dict[str, list[Stored]] = field(default_factory=dict)
    kept_points: list[Point] = field(default_factory=list)
    cursors: dict[str, int] = field(default_factory=dict)
    cancels: set[str] = field(default_factory=set)
    results: dict[str, tuple[Succeeded, str]] = field(default_factory=dict)
    held: dict[str, Lease] = field(default_factory=dict)
    drains: dict[str, str] = field(default_factory=dict)
    unused: dict[tuple[str, str], UnusedNode] = field(default_factory=dict)
    approved: dict[str, dict[str, str]] = field(default_factory=dict)
    queues: dict[str, tuple[float, tuple[Queued, ...]]] = field(default_factory=dict)
    not_told: dict[str, tuple[Untold, ...]] = field(default_factory=dict)
    occupied: dict[str, tuple[Busy, ...]] = field(default_factory=dict)
    chunks: dict[str, list[LogChunk]] = field(default_factory=dict)
    last_id: int = 0
    reported: dict[tuple[str, str, int], dict[str, str]] = field(default_factory=dict)
    progressed: dict[str, dict[tuple[str, int], Progress]] = field(default_factory=dict)
    judged: dict[tuple[str, str, str], Verdict] = field(default_factory=dict)
    now: Callable[[], float] = lambda: 0.0

    def create(self, header: RunHeader, at: float) -> None:
        if header.run in self.headers:
            raise StoreError(f"run {header.run!r} exists")
        self.headers[header.run] = header
        self.log[header.run] = []

    def append(
        self, run: str, seq: int, events: Sequence[Event], at: float, lease: Lease | None = None
    ) -> None:
        log = self.log[run]
        if seq <= len(log):
            raise StaleControllerError(f"event {seq!r} of run {run!r} exists")
        if seq != len(log) + 1:
            raise StoreError(f"event {seq!r} of run {run!r} leaves a gap after {len(log)!r}")
        log.extend(Stored(run, seq + index, at, event) for index, event in enumerate(events))
        if lease is not None:
            self.renew_lease(lease)

    def events(self, run: str, after: int = 0) -> Sequence[Stored]:
        return tuple(self.log[run][after:])

    def events_of(self, runs: Collection[str]) -> Mapping[str, Sequence[Stored]]:
        return {run: self.events(run) for run in runs}

    def header(self, run: str) -> RunHeader:
        found = [header for name, header in self.headers.items() if name.startswith(run)]
        if len(found) != 1:
            raise NotFoundError(f"no run {run!r}")
        return found[0]

    def runs(self, limit: int = 50) -> Sequence[RunHeader]:
        return sorted(self.headers.values(), key=lambda one: -one.created)[:limit]

    def add_points(self, run: str, stage: str, attempt: int, points: Sequence[Points]) -> None:
        for one in points:
            for key, value in one.values.items():
                known = {"run": run, "stage": stage, "attempt": attempt, "key": key}
                place = len(self.kept_points) + 1
                point = Point(id=place, value=value, step=one.step, at=one.at, **known)
                self.kept_points.append(point)

    def points(self, run: str, after: int = 0, limit: int = 10_000) -> Sequence[Point]:
        found = [point for point in self.kept_points if point.run == run and point.id > after]
        return found[:limit]

    def curves(self, run: str, upto: int) -> Sequence[Curve]:
        known: dict[tuple[str, int, str], Curve] = {}
        for point in self.kept_points:
            if point.run == run and point.id <= upto and type(point.step) is int:
                place = (point.stage, point.attempt, point.key)
                so_far = known.get(place) or Curve(
                    stage=point.stage, attempt=point.attempt, key=point.key, points=0, step=0
                )
                step = max(so_far.step, point.step) if so_far.points else point.step
                known[place] = replace(so_far, points=so_far.points + 1, step=step)
        return list(known.values())

    def curve_points(self, run: str, curve: Curve, above: float, upto: int) -> Sequence[Point]:
        place = (run, curve.stage, curve.attempt, curve.key)
        return [
            point
            for point in self.kept_points
            if (point.run, point.stage, point.attempt, point.key) == place
            and above < point.step
            and point.id <= upto
        ]

    def cursor(self, name: str) -> int:
        return self.cursors.get(name, 0)

    def set_cursor(self, name: str, value: int) -> None:
        self.cursors[name] = value

    def renew_lease(self, lease: Lease) -> None:
        found = self.held.get(lease.run)
        if found and found.epoch > lease.epoch:
            raise StaleControllerError(f"run {lease.run!r} has another controller")
        self.held[lease.run] = lease

    def lease(self, run: str) -> Lease | None:
        return self.held.get(run)

    def leases(self) -> Sequence[Lease]:
        return tuple(self.held.values())

    def drop_lease(self, run: str, epoch: int) -> None:
        if run in self.held and self.held[run].epoch == epoch:
            del self.held[run]

    def note_untold(self, run: str, untold: Sequence[Untold]) -> None:
        self.not_told[run] = tuple(untold)

    def note_busy(self, run: str, busy: Sequence[Busy]) -> None:
        self.occupied[run] = tuple(busy)

    def busy(self, run: str) -> Sequence[Busy]:
        return self.occupied.get(run, ())

    def untold(self, run: str) -> Sequence[Untold]:
        return self.not_told.get(run, ())

    def add_log(self, run: str, chunks: Sequence[LogChunk]) -> None:
        for chunk in chunks:
            self.last_id += 1
            self.chunks.setdefault(run, []).append(replace(chunk, id=self.last_id))

    def log_chunks(
        self, run: str, after: int = 0, stage: str | None = None, attempt: int | None = None
    ) -> Sequence[LogChunk]:
        return [
            chunk
            for chunk in self.chunks.get(run, ())
            if chunk.id > after
            and stage in (None, chunk.stage)
            and attempt in (None, chunk.attempt)
        ]

    def log_ends(self, run: str) -> Mapping[tuple[str, int], int]:
        return {(chunk.stage, chunk.attempt): chunk.id for chunk in self.chunks.get(run, ())}

    def page_log(self, run: str, page: LogChunk) -> None:
        mine = (page.stage, page.attempt)
        self.chunks[run] = [
            page if chunk.id == page.id else chunk
            for chunk in self.chunks[run]
            if (chunk.stage, chunk.attempt) != mine or chunk.id >= page.id or chunk.page
        ]

    def note_report(self, run: str, place: tuple[str, int], name: str, text: str) -> None:
        self.reported.setdefault((run, *place), {})[name] = text

    def reports(self, run: str, stage: str, attempt: int) -> Mapping[str, str]:
        return self.reported.get((run, stage, attempt), {})

    def note_progress(self, run: str, place: tuple[str, int], progress: Progress) -> None:
        self.progressed.setdefault(run, {})[place] = progress

    def progress(self, run: str) -> Mapping[tuple[str, int], Progress]:
        return self.progressed.get(run, {})

    def drain(self, pool: str, reason: str) -> None:
        self.drains[pool] = reason

    def undrain(self, pool: str) -> None:
        self.drains.pop(pool, None)

    def drained(self) -> Mapping[str, str]:
        return dict(self.drains)

    def quarantine(self, pool: str, node: str, reason: str, seconds: float) -> None:
        until = self.now() + seconds
        before = self.unused.get((pool, node))
        if before is None or (before.until is not None and before.until < until):
            self.unused[pool, node] = UnusedNode(pool=pool, node=node, reason=reason, until=until)

    def drain_node(self, pool: str, node: str, reason: str) -> None:
        self.unused[pool, node] = UnusedNode(pool=pool, node=node, reason=reason)

    def release_node(self, pool: str, node: str) -> None:
        self.unused.pop((pool, node), None)

    def unused_nodes(self) -> Sequence[UnusedNode]:
        return [u for u in self.unused.values() if u.until is None or u.until > self.now()]

    def approve(self, run: str, stage: str, by: str) -> None:
        self.approved.setdefault(self.header(run).run, {})[stage] = by

    def approvals(self, run: str) -> Mapping[str, str]:
        return self.approved.get(run, {})

    def queue_up(self, run: str, entries: Sequence[Queued]) -> None:
        self.queues[run] = (self.now(), tuple(entries))

    def queue(self, seconds: float, pools: Collection[str] | None = None) -> Sequence[Queued]:
        now = self.now()
        lines = [entries for at, entries in self.queues.values() if abs(now - at) <= seconds]
        return [
            entry for entries in lines for entry in entries if pools is None or entry.pool in pools
        ]

    def note_verdict(self, verdict: Verdict) -> None:
        self.judged[verdict.pool, str(verdict.role), verdict.identity] = verdict

    def verdicts(self) -> Sequence[Verdict]:
        return [self.judged[key] for key in sorted(self.judged)]

    def request_cancel(self, run: str) -> None:
        self.cancels.add(run)

    def withdraw_cancel(self, run: str) -> None:
        self.cancels.discard(run)

    def cancel_requested(self, run: str) -> bool:
        return run in self.cancels

    def remember(self, key: str, result: Succeeded, run: str) -> None:
        self.results[key] = (result, run)

    def recall(self, key: str) -> tuple[Succeeded, str] | None:
        return self.results.get(key)


@dataclass
class WatchedStore(MemoryStore):
    """A database in which something happens before and after each commit."""

    before: Callable[[int, Sequence[Event]], object] = lambda _seq, _events: None
    after: Callable[[], object] = lambda: None

    @classmethod
    def of(cls, others: MemoryStore) -> Self:
        """Share what is in the database of `others`, whose own commits are not watched."""
        return cls(**vars(others))

    def append(
        self, run: str, seq: int, events: Sequence[Event], at: float, lease: Lease | None = None
    ) -> None:
        self.before(seq, events)
        super().append(run, seq, events, at, lease)
        self.after()
