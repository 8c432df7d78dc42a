"""A thousand runs at once on 2,048 chips in nine pools, on a cluster that runs nothing.

The controllers are those of the product, each in a thread of this process, and take turns on one
core; the database is SQLite, then PostgreSQL with commits that are flushed. So a figure is what
controllers and database take, beside Ray and jobs. `docs/scale.md` says what follows from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import psutil
import pytest
from sqlalchemy import func, select

from orchestrator import wiring
from orchestrator.adapters.database import SqlDatabase, schema
from orchestrator.controller.attempt_requests import AttemptDefaults
from orchestrator.controller.backfill import held_up_by
from orchestrator.controller.dependencies import Dependencies
from orchestrator.controller.loop import Controller
from orchestrator.core.errors import ClusterError
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.spec.plan import Plan, make_plan
from orchestrator.messages import PoolState, PoolStatus, Queued
from orchestrator.service import names, status
from tests.benchmarks import bench_failures
from tests.benchmarks.fake_cluster import FakeCluster, TurnsClock
from tests.benchmarks.table import Row, compare, seconds
from tests.build import bindings, fleet, header, pipeline, pool, stage
from tests.fakes import FakeArtifacts, FakeGates, FakeTracker
from tests.postgres import server
from tests.statements import counted

SIZES = (32, 28, 28, 28, 28, 28, 28, 28, 28)  # nodes of eight chips: 2,048 together
POOLS = tuple(f"pool{number}" for number in range(len(SIZES)))
RUNS, STAGES, CHIPS = 1_000, 10, 8
LONG, SETTLES, WATCHED = 3_600.0, 30.0, 30.0  # seconds: of an attempt, and of what is watched
SHORT = 5.0
FEW = 50  # runs that are driven to their end with nothing to wait for
MANY_STAGES = 10_000
FLEET = fleet(*(pool(name, nodes=nodes) for name, nodes in zip(POOLS, SIZES, strict=True)))
DEFAULTS = AttemptDefaults(
    packages=("jobs",), code=(), storage="mem://", reuse_key=lambda _run, _stage: None
)


def rows() -> list[Row]:
    """Drive the runs on each database; plan for the fleet; weigh a gang that fails."""
    found = [*_planning(), *_queue(), *_failing()]
    with TemporaryDirectory() as folder:
        found += _of_database("SQLite", f"sqlite:///{folder}/events.db", lambda: 0.0)
    with server(durable=True) as postgres:
        spent = partial(_cpu_of_children, postgres.pid)
        found += _of_database("PostgreSQL", postgres.schema(), spent)
    return found


# --- without a database -----------------------------------------------------------------------


def planned(number: int, count: int = STAGES, chips: int = CHIPS) -> Plan:
    """Return the plan of a chain of stages on pool `number`, with two more to fall back to."""
    needs = replace(stage("s0").needs, devices=chips)
    stages = [stage("s0", needs=needs)]
    stages += [stage(f"s{index}", f"s{index - 1}", needs=needs) for index in range(1, count)]
    mine = [POOLS[(number + step) % len(POOLS)] for step in range(3)]
    return make_plan(pipeline(*stages), FLEET, bindings(*mine))


def _planning() -> Iterator[Row]:
    whole = seconds(lambda: planned(0, MANY_STAGES), times=1)
    half = seconds(lambda: planned(0, MANY_STAGES // 2), times=1)
    name = f"plan {MANY_STAGES:,} stages on nine pools"
    yield compare(f"{name}, against half as many", whole, half, goal="ratio < 2.5")


def _queue() -> Iterator[Row]:
    """What it takes to see that one has to wait, behind as many as wait for a pool."""
    each = RUNS // len(POOLS)
    queue = [
        Queued(pool=POOLS[0], run=f"run{n}", stage="s", priority=0, since=float(n), devices=CHIPS)
        for n in range(each)
    ]
    full = PoolStatus(name=POOLS[0], state=PoolState.UP, devices=SIZES[0] * 8, free=0)
    took = seconds(lambda: held_up_by(queue[-1], queue, full, 0.0))
    yield Row(name=f"see who goes first of {each}", ours=took * 1e6, unit="us")


def _failing() -> Iterator[Row]:
    yield from bench_failures.weighed()


# --- with one ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fleet:
    """Runs that live at once, the clock that gives them turns, and how often each came."""

    store: SqlDatabase
    clock: TurnsClock
    cluster: FakeCluster
    turns: list[int]

    @classmethod
    def new(cls, store: SqlDatabase, lasting: float) -> Fleet:
        """Return one without runs, whose attempts last so many seconds."""
        clock = TurnsClock()
        return cls(store, clock, FakeCluster(FLEET.pools, clock, lasting), [0])

    def controller(self, run: RunHeader) -> Controller:
        """Return the controller of a run; it counts its turns."""
        deps = Dependencies(
            cluster=self.cluster,
            serving=self.cluster,
            store=self.store,
            artifacts=FakeArtifacts(),
            tracker=FakeTracker(),
            clock=self.clock,
            gates=FakeGates(),
            leave=self._turned,
        )
        return Controller(run, deps, DEFAULTS)

    def _turned(self) -> None:
        if self.turns[0] < 0:
            raise ClusterError("that was enough")
        self.turns[0] += 1

    def stop(self) -> None:
        """Have each run left at its next turn."""
        self.turns[0] = -1


def _of_database(name: str, url: str, spent: Callable[[], float]) -> Iterator[Row]:
    store = SqlDatabase(url)
    with ExitStack() as closing:
        closing.callback(store.close)
        yield from _few(name, store)
        yield from _live(name, store, url, spent)
        yield from _turning_over(name, store)


def _few(name: str, store: SqlDatabase) -> Iterator[Row]:
    """Drive a few runs to their end as fast as that goes, against the bare inserts."""
    headers = _created(store, "few", FEW, chips=0)
    living = Fleet.new(store, lasting=0.0)
    with counted() as counts:
        start = perf_counter()
        for known in headers:
            living.controller(known).drive()
        took = perf_counter() - start
    events = [stored for known in headers for stored in store.events(known.run)]
    bare = seconds(lambda: _insert(store, len(events)), times=1)
    yield compare(
        f"{name}: events a second of one controller, against bare inserts",
        len(events) / took,
        len(events) / bare,
        unit="1/s",
    )
    yield Row(name=f"{name}: decisions a second", ours=living.turns[0] / took, unit="1/s")
    yield Row(name=f"{name}: rows of a run", ours=_rows_of(store, headers[0].run), unit="")
    yield Row(name=f"{name}: commits of a run", ours=counts["commits"] / FEW, unit="")


def _live(name: str, store: SqlDatabase, url: str, spent: Callable[[], float]) -> Iterator[Row]:
    """Have a thousand runs live, some of which run while all others wait for their pools."""
    start = perf_counter()
    headers = _created(store, "live", RUNS)
    each = (perf_counter() - start) / RUNS
    yield Row(name=f"{name}: create a run of {STAGES} stages", ours=each * 1e3, unit="ms")
    living, before = Fleet.new(store, LONG), _resident()
    controllers = [living.controller(known) for known in headers]
    threads = [living.clock.start(one.drive) for one in controllers]
    living.clock.sleep(SETTLES)
    memory = (_resident() - before) / RUNS
    with counted() as counts:
        turns, late = living.turns[0], len(living.clock.late)
        cpu, of_server, began = process_time(), spent(), perf_counter()
        living.clock.sleep(WATCHED)
        turns, took = living.turns[0] - turns, perf_counter() - began
        cpu, of_server = process_time() - cpu, spent() - of_server
    asked = counts.total() - counts["commits"]
    yield Row(name=f"{name}: memory of a live run", ours=memory / 1e3, unit="kB")
    yield Row(name=f"{name}: turns a second of {RUNS:,} live runs", ours=turns / took, unit="1/s")
    yield Row(name=f"{name}: CPU of a turn", ours=cpu / turns * 1e6, unit="us")
    yield Row(
        name=f"{name}: CPU of the server, of a turn", ours=of_server / turns * 1e6, unit="us"
    )
    yield Row(name=f"{name}: statements of a turn", ours=asked / turns, unit="")
    yield Row(name=f"{name}: commits a second", ours=counts["commits"] / took, unit="1/s")
    lateness = living.clock.late[late:]
    yield Row(name=f"{name}: a turn is late by", ours=median(lateness), goal="ours < 0.2")
    yield from _listed(name, url, headers)
    living.stop()
    living.clock.sleep(0.0)
    while any(thread.is_alive() for thread in threads):
        living.clock.sleep(0.1)
    unexpected = [error for error in living.clock.errors if not isinstance(error, ClusterError)]
    if unexpected:
        raise unexpected[0]


def _listed(name: str, url: str, headers: Sequence[RunHeader]) -> Iterator[Row]:
    """Ask what people ask, beside a thousand live runs."""
    with _at_home(url):
        for count in (20, RUNS):
            took = seconds(lambda count=count: status.newest(count), times=1)  # type: ignore[misc]
            yield Row(name=f"{name}: status of the newest {count:,}", ours=took)
        took = seconds(lambda: status.status(headers[0].run), times=3)
        yield Row(name=f"{name}: status of one run", ours=took * 1e3, unit="ms")
        took = seconds(lambda: names.runs(50), times=3)
        yield Row(name=f"{name}: complete a run's name", ours=took * 1e3, unit="ms")
        store = wiring.database(wiring.home())
        took = seconds(lambda: store.queue(30.0), times=3)
        yield Row(name=f"{name}: pools: read who waits", ours=took * 1e3, unit="ms")


def _turning_over(name: str, store: SqlDatabase) -> Iterator[Row]:
    """Have places become free all the time: how long until the next in line is asked for."""
    headers = _created(store, "turning", RUNS)
    living = Fleet.new(store, SHORT)
    threads = [living.clock.start(living.controller(known).drive) for known in headers]
    living.clock.sleep(SETTLES)
    living.cluster.waits.clear()
    living.clock.sleep(WATCHED)
    waits = list(living.cluster.waits)
    living.stop()
    while any(thread.is_alive() for thread in threads):
        living.clock.sleep(0.1)
    goal = "ours < 1"
    yield Row(name=f"{name}: from room to the next attempt", ours=median(waits), goal=goal)
    yield Row(name=f"{name}: the same, one of twenty", ours=quantiles(waits, n=20)[-1])
    yield Row(name=f"{name}: attempts placed a second", ours=len(waits) / WATCHED, unit="1/s")


def _created(store: SqlDatabase, stem: str, count: int, chips: int = CHIPS) -> Sequence[RunHeader]:
    plans = [planned(number, chips=chips) for number in range(len(POOLS))]
    now = store.now()
    headers = [
        replace(header(plans[n % len(plans)], f"{stem}-{n:04}"), created=now) for n in range(count)
    ]
    for known in headers:
        store.create(known, now)
    return headers


def _insert(store: SqlDatabase, count: int) -> None:
    """Commit as many rows as there were events, one by one, by SQLAlchemy alone."""
    run = header(planned(0), f"bare-{count}")
    store.create(run, 0.0)
    body = "x" * 100
    for seq in range(1, count + 1):
        row = {"run": run.run, "seq": seq, "at": 0.0, "kind": "Bare", "body": body}
        with store.writing() as connection:
            connection.execute(schema.events.insert(), row)


def _rows_of(store: SqlDatabase, run: str) -> int:
    tables = [table for table in schema.metadata.sorted_tables if "run" in table.c]
    with store.engine.connect() as connection:
        counts = (select(func.count()).select_from(t).where(t.c.run == run) for t in tables)
        return sum(connection.scalar(one) or 0 for one in counts)


@contextmanager
def _at_home(url: str) -> Iterator[None]:
    """Have the use cases ask this database."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as environment:
        environment.setenv("ORCHESTRATOR_HOME", folder)
        environment.setenv("ORCHESTRATOR_DATABASE", url)
        yield


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _cpu_of_children(pid: int) -> float:
    """Return the CPU seconds of a server and of its processes that live."""
    parent = psutil.Process(pid)
    times = [process.cpu_times() for process in (parent, *parent.children())]
    return sum(one.user + one.system for one in times)
