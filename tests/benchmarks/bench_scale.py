"""A thousand runs at once on 2,048 chips in nine pools, on a cluster that runs nothing.

The controllers are those of the product, each in a thread of this process; the database is SQLite,
then PostgreSQL. They take turns by a clock of their own, and figures are CPU time, of them and of
the database, for each second of that clock: waiting, for a disk or a core, is not in them.
`docs/scale.md` says what follows from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TypeAlias

import psutil
import pytest
from sqlalchemy import func, select

from orchestrator import wiring
from orchestrator.adapters.database import SqlDatabase, schema
from orchestrator.controller.attempt_requests import AttemptDefaults
from orchestrator.controller.backfill import held_up_by
from orchestrator.controller.controller_ports import ControllerPorts
from orchestrator.controller.loop import Controller
from orchestrator.core.errors import ClusterError
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.spec.plan import Plan, make_plan
from orchestrator.messages import PoolState, PoolStatus, Queued
from orchestrator.service import names, status
from tests.benchmarks import bench_failures
from tests.benchmarks.fake_cluster import FakeCluster, TurnsClock
from tests.benchmarks.table import Row, compare, cpu_seconds
from tests.build import bindings, fleet, header, pipeline, pool, stage
from tests.fakes import FakeArtifacts, FakeGates, FakeTracker
from tests.postgres import server
from tests.statements import counted

SIZES = (32, 28, 28, 28, 28, 28, 28, 28, 28)  # nodes of eight chips: 2,048 together
POOLS = tuple(f"pool{number}" for number in range(len(SIZES)))
RUNS, STAGES, CHIPS = 1_000, 10, 8
LONG, SHORT = 3_600.0, 5.0  # seconds of an attempt
SETTLES, WATCHED = 6.0, 8.0  # seconds, by the clock of the controllers
ENOUGH = -1  # turns
FEW = 50  # runs that are driven to their end with nothing to wait for
MANY_STAGES = 10_000
Cpu: TypeAlias = Callable[[], float]
FLEET = fleet(*(pool(name, nodes=nodes) for name, nodes in zip(POOLS, SIZES, strict=True)))
DEFAULTS = AttemptDefaults(
    packages=("jobs",), code=(), storage="mem://", reuse_key=lambda _run, _stage: None
)


def rows() -> list[Row]:
    """Drive the runs on each database; plan for the fleet; weigh a gang that fails."""
    found = [*_planning(), *_queue(), *bench_failures.weighed()]
    with TemporaryDirectory() as folder:
        found += _of_database("SQLite", f"sqlite:///{folder}/events.db", lambda: 0.0)
    with server() as postgres:
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
    whole = cpu_seconds(lambda: planned(0, MANY_STAGES))
    half = cpu_seconds(lambda: planned(0, MANY_STAGES // 2))
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
    took = cpu_seconds(lambda: [held_up_by(queue[-1], queue, full, 0.0) for _ in range(1000)])
    yield Row(name=f"see who goes first of {each}", ours=took * 1e3, unit="us")


# --- with one ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Living:
    """Runs that live at once, the clock that gives them turns, and how many those were."""

    store: SqlDatabase
    clock: TurnsClock
    cluster: FakeCluster
    turns: list[int]

    @classmethod
    def new(cls, store: SqlDatabase, lasting: float) -> Living:
        """Return none yet, whose attempts will last so many seconds."""
        clock = TurnsClock()
        return cls(store, clock, FakeCluster(FLEET.pools, clock, lasting), [0])

    def controller(self, run: RunHeader) -> Controller:
        """Return the controller of a run; it counts its turns."""
        deps = ControllerPorts(
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
        if self.turns[0] == ENOUGH:
            raise ClusterError("that was enough")
        self.turns[0] += 1


def _of_database(name: str, url: str, spent: Cpu) -> Iterator[Row]:
    store = AnyAge(url)
    try:
        yield from _few(name, store, spent)
        yield from _live(name, store, url, spent)
        yield from _turning_over(name, store)
    finally:
        store.close()


class AnyAge(SqlDatabase):
    """A database in which whoever waits counts, whenever that was said: its clock is another."""

    def queue(self, seconds: float, pools: Collection[str] | None = None) -> Sequence[Queued]:
        """Return what all runs wait for."""
        return super().queue(seconds + LONG, pools)


def _few(name: str, store: SqlDatabase, spent: Cpu) -> Iterator[Row]:
    """Drive a few runs to their end, against bare inserts of as many events."""
    headers = _created(store, "few", FEW, chips=0)
    living = Living.new(store, lasting=0.0)

    def drive() -> None:
        for known in headers:
            living.controller(known).drive()

    with counted() as counts:
        took = cpu_seconds(drive, spent)
    events = sum(len(store.events(known.run)) for known in headers)
    bare = cpu_seconds(lambda: _insert(store, events), spent)
    what = f"{name}: CPU of an event of a run, against its bare insert"
    yield compare(what, took / events * 1e6, bare / events * 1e6, unit="us")
    yield Row(name=f"{name}: decisions a second of CPU", ours=living.turns[0] / took, unit="1/s")
    yield Row(name=f"{name}: rows of a run", ours=_rows_of(store, headers[0].run), unit="")
    yield Row(name=f"{name}: commits of a run", ours=counts["commits"] / FEW, unit="")


def _live(name: str, store: SqlDatabase, url: str, spent: Cpu) -> Iterator[Row]:
    """Have a thousand runs live: some run, all others wait for their pools."""
    headers: list[RunHeader] = []
    each = cpu_seconds(lambda: headers.extend(_created(store, "live", RUNS)), spent) / RUNS
    yield Row(name=f"{name}: create a run of {STAGES} stages", ours=each * 1e3, unit="ms")
    living, before = Living.new(store, LONG), _resident()
    threads = [living.clock.start(living.controller(known).drive) for known in headers]
    living.clock.sleep(SETTLES)
    memory = (_resident() - before) / RUNS
    with counted() as counts:
        turns, server = living.turns[0], spent()
        took = cpu_seconds(lambda: living.clock.sleep(WATCHED), spent)
        turns, server = living.turns[0] - turns, spent() - server
    asked = counts.total() - counts["commits"]
    here = (took - server) / WATCHED
    yield Row(name=f"{name}: memory of a live run", ours=memory / 1e3, unit="kB")
    yield Row(name=f"{name}: turns of {RUNS:,} live runs", ours=turns / WATCHED, unit="1/s")
    yield Row(name=f"{name}: statements of them", ours=asked / WATCHED, unit="1/s")
    yield Row(name=f"{name}: commits of them", ours=counts["commits"] / WATCHED, unit="1/s")
    yield Row(name=f"{name}: cores of their controllers", ours=here, unit="cores")
    yield Row(name=f"{name}: cores of the server", ours=server / WATCHED, unit="cores")
    yield from _listed(name, url, headers, spent)
    _leave(living, threads)
    for known in headers:  # else their places in the lines are kept for a while
        store.queue_up(known.run, ())


def _listed(name: str, url: str, headers: Sequence[RunHeader], spent: Cpu) -> Iterator[Row]:
    """Ask what people ask, beside a thousand live runs."""
    with _at_home(url):
        store = wiring.database(wiring.home())
        questions: dict[str, Callable[[], object]] = {
            "status of the newest 20": lambda: status.newest(20),
            f"status of {RUNS:,} runs": lambda: status.newest(RUNS),
            "status of one run": lambda: status.status(headers[0].run),
            "complete the name of a run": lambda: names.runs(50),
            "who waits, as `pools` shows": lambda: store.queue(LONG),
        }
        for what, ask in questions.items():
            yield Row(name=f"{name}: {what}", ours=cpu_seconds(ask, spent) * 1e3, unit="ms")
        store.close()


def _turning_over(name: str, store: SqlDatabase) -> Iterator[Row]:
    """Have places become free all the time: how long until the next in line is asked for."""
    headers = _created(store, "turning", RUNS)
    living = Living.new(store, SHORT)
    threads = [living.clock.start(living.controller(known).drive) for known in headers]
    living.clock.sleep(SETTLES)
    living.cluster.waits.clear()
    living.clock.sleep(2 * SHORT)
    waits = list(living.cluster.waits)
    _leave(living, threads)
    yield Row(name=f"{name}: from room to the next attempt", ours=median(waits), goal="ours < 1")
    yield Row(name=f"{name}: the same, one of twenty", ours=quantiles(waits, n=20)[-1])
    placed = len(waits) / (2 * SHORT)
    yield Row(name=f"{name}: attempts placed", ours=placed, unit="1/s")


def _leave(living: Living, threads: Sequence[Thread]) -> None:
    """Have each run left at its next turn, and wait for that."""
    living.turns[0] = ENOUGH
    while any(thread.is_alive() for thread in threads):
        living.clock.sleep(1.0)
    unexpected = [error for error in living.clock.errors if not isinstance(error, ClusterError)]
    if unexpected:
        raise unexpected[0]


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
