"""Remove what nobody needs any more: of runs that are over, and of this machine's cache.

Results are kept from standing for later stages before their artifacts go, and what is in use is
looked up again after that: so a stage that starts meanwhile runs itself, or keeps its input.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Protocol

from orchestrator import wiring
from orchestrator.core import artifact_paths
from orchestrator.core.artifact import ShippedCode
from orchestrator.core.runs.retention import Disposable, Retention, Uses, disposable
from orchestrator.core.runs.run import Run
from orchestrator.core.spec.stages import Json
from orchestrator.core.storage_uris import Sight, seen_by
from orchestrator.ports import ArtifactStore, Disposal, EndpointLog, EventLog
from orchestrator.service import driving, runs
from orchestrator.service.change import Change
from orchestrator.service.code_archives import CodeArchives

EVERY_RUN = 10**9
DAY = 86_400.0
MB = 1e6


class Kind(StrEnum):
    """What may be removed; a run goes with all that it has."""

    CHECKPOINTS = "checkpoints"
    POINTS = "points"  # and log lines; what MLflow was told stays there
    ARTIFACTS = "artifacts"
    RUNS = "runs"
    CODE = "code"  # archives that no run has any more
    CACHES = "caches"


@dataclass(frozen=True, slots=True)
class Collected:
    """How many runs lost something, how many bytes of storage went, and how many rows.

    `shown` is how many runs of MLflow were deleted there.
    """

    runs: int = 0
    size: int = 0
    rows: int = 0
    shown: int = 0

    def __add__(self, other: Collected) -> Collected:
        """Return both together."""
        rows, shown = self.rows + other.rows, self.shown + other.shown
        return Collected(self.runs + other.runs, self.size + other.size, rows, shown)


class _Database(EventLog, EndpointLog, Disposal, Protocol):
    """Runs, what uses their artifacts, and what can be forgotten of them."""


def collect(
    rules: Retention, kinds: Collection[Kind], *, start: bool = True, tracked: bool = False
) -> Change[Collected]:
    """Remove the `kinds` of things that `rules` don't keep and nothing uses.

    The registry knows which models are champions; without `start` one that is down stays down.
    With `tracked` what MLflow shows of runs that go whole is deleted there, too.

    Raises:
        TrackingError: The registry can't be asked.
    """
    database = wiring.database(wiring.home())
    collector = _Collector(rules, frozenset(kinds), database, start=start, tracked=tracked)
    return Change("\n".join(collector.lines()) or "nothing is to be removed", collector.remove)


@dataclass(frozen=True, slots=True)
class _Collector:
    rules: Retention
    kinds: frozenset[Kind]
    database: _Database
    start: bool
    tracked: bool

    def lines(self) -> Iterator[str]:
        removable = self._removable()
        for part in removable.parts:
            yield part.line()
        for archives in removable.archives:
            yield from archives.lines()
        shown = wiring.unshow(wiring.home(), removable.shown, dry=True)
        if shown:
            yield f"from MLflow: {shown:,} of its runs"
        size = self._sweep(dry=True)
        if size:
            yield f"from this machine's cache: {size / MB:,.1f} MB"

    def remove(self) -> Collected:
        if self.kinds & {Kind.ARTIFACTS, Kind.RUNS}:
            for part in self._removable().parts:
                part.forget_results()
        removable = self._removable()
        done = Collected(shown=wiring.unshow(wiring.home(), removable.shown, dry=False))
        done += Collected(size=sum(archives.remove() for archives in removable.archives))
        for part in removable.parts:
            done += part.remove()
        return done + Collected(size=self._sweep(dry=False))

    def _sweep(self, *, dry: bool) -> int:
        if Kind.CACHES not in self.kinds:
            return 0
        return wiring.sweep_cache(wiring.clock().now() - self.rules.days * DAY, dry=dry)

    def _removable(self) -> _Removable:
        """Return what may be removed now."""
        store = self.database
        known = runs.load_all(store, store.runs(EVERY_RUN))
        lives = store.endpoints().values()
        revisions = [r for life in lives for r in (*life.live, life.before) if r is not None]
        needed = [r.deployment for r in revisions if r.deployment is not None]
        served = [ref for d in needed for ref in (d.model, d.proof) if ref is not None]
        uses = Uses(runs=[d.run for d in needed], artifacts=served, digests=self._aliased(known))
        may_go = disposable(known, uses, self.rules, store.now())
        gone = [run for run in may_go.whole if _here(run)]
        whole = gone if self.tracked and Kind.RUNS in self.kinds else []
        return _Removable(
            parts=self._parts(may_go),
            archives=self._archives(known, gone, [d.shipped for d in needed if d.shipped]),
            shown=[run for run in whole if _section(run, "tracking").get("enabled", True)],
        )

    def _parts(self, may_go: Disposable) -> list[_Part]:
        """Return what may be removed of each run, those that have something to remove."""
        now, database = self.database.now(), self.database
        own = self.kinds - {Kind.CACHES, Kind.CODE}
        bulk = self.kinds & {Kind.CHECKPOINTS, Kind.POINTS}
        parts = [_Part(run, own, database, now) for run in may_go.whole]
        parts += [_Part(run, bulk, database, now) for run in may_go.results]
        return [part for part in parts if part.kinds and _here(part.run) and part.has_something]

    def _archives(
        self, runs: Sequence[Run], removed: Sequence[Run], served: Sequence[ShippedCode]
    ) -> list[CodeArchives]:
        """Return the archives of code in each store that is seen from here.

        They are looked at whenever runs go, too: marks of a run that is forgotten would be
        taken for those of a run of another database.
        """
        if not self.kinds & {Kind.CODE, Kind.RUNS}:
            return []
        names = {run.header.run for run in removed}
        stay = [run for run in runs if run.header.run not in names]
        uses = partial(CodeArchives, removed=removed, stay=stay, served=served)
        here = partial(uses, home=wiring.home_id(wiring.home()), now=self.database.now())
        stores = {_storage(run) for run in runs if _here(run)}
        return [here(store=wiring.artifact_store(uri)) for uri in sorted(stores)]

    def _aliased(self, runs: Sequence[Run]) -> list[str]:
        """Return the digests of models with an alias; runs that nobody showed have none."""
        if not any(_section(run, "tracking").get("enabled", True) for run in runs):
            return []
        with closing(wiring.registry(wiring.home(), start=self.start)) as registry:
            versions = [version for version in registry.versions() if version.aliases]
        return [version.key.partition("@")[0] for version in versions]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Removable:
    """What may be removed: `parts` of runs, `archives` of code, and runs that MLflow shows."""

    parts: Sequence[_Part]
    archives: Sequence[CodeArchives]
    shown: Sequence[Run]


@dataclass(frozen=True, slots=True)
class _Part:
    """What of a run may be removed: the `kinds` of its things."""

    run: Run
    kinds: Collection[Kind]
    database: _Database
    now: float

    @property
    def name(self) -> str:
        return self.run.header.run

    @property
    def has_something(self) -> bool:
        return self._whole or any(self._sizes().values()) or bool(self._rows())

    def line(self) -> str:
        days = (self.now - (self.run.ended or self.run.header.created)) / DAY
        what = [f"{kind} {size / MB:,.1f} MB" for kind, size in self._sizes().items() if size]
        what += [f"{self._rows():,} points and pieces of logs"] if self._rows() else []
        what += ["its record"] if self._whole else []
        return f"of run {self.name} ({self.run.state}, {days:.0f} days ago): {', '.join(what)}"

    def forget_results(self) -> None:
        if self._has(Kind.ARTIFACTS):
            self.database.forget_results(self.name)

    def remove(self) -> Collected:
        """Remove it, the record last: what is broken off is done again."""
        store, database = self._store(), self.database
        size = sum(self._sizes().values())
        for folder in self._folders().values():
            store.remove(folder)
        if self._has(Kind.ARTIFACTS):
            store.remove(artifact_paths.damaged(self.name))
        rows = 0
        if self._has(Kind.POINTS):
            store.remove(artifact_paths.logs(self.name))
            rows += database.forget_telling(self.name)
        if self._whole:
            rows += database.forget_run(self.name)
        return Collected(runs=1, size=size, rows=rows)

    @property
    def _whole(self) -> bool:
        return Kind.RUNS in self.kinds

    def _has(self, kind: Kind) -> bool:
        return self._whole or kind in self.kinds

    def _folders(self) -> dict[Kind, str]:
        folders = {
            Kind.CHECKPOINTS: f"{artifact_paths.CHECKPOINTS}/{self.name}",
            Kind.ARTIFACTS: self.name,
        }
        return {kind: folder for kind, folder in folders.items() if self._has(kind)}

    def _sizes(self) -> dict[Kind, int]:
        store = self._store()
        return {kind: store.weight(folder) for kind, folder in self._folders().items()}

    def _rows(self) -> int:
        return self.database.count_telling(self.name) if self._has(Kind.POINTS) else 0

    def _store(self) -> ArtifactStore:
        return wiring.artifact_store(_storage(self.run))


def _here(run: Run) -> bool:
    """Whether the storage of a run is seen from here, as far as its address tells."""
    storage = _section(run, "storage")
    seen = seen_by(str(storage.get("uri") or ""))
    if seen is Sight.EVERYWHERE or (seen is Sight.HOST and storage.get("shared")):
        return True
    tags = run.header.tags
    if not storage.get("uri") and driving.HOME in tags:
        return tags[driving.HOME] == wiring.home_id(wiring.home())
    return driving.from_here(tags)


def _storage(run: Run) -> str:
    """Return the URI of the artifact store of a run."""
    uri = str(_section(run, "storage").get("uri") or "")
    return uri or (wiring.home() / "artifacts").as_uri()


def _section(run: Run, name: str) -> Mapping[str, Json]:
    section = run.header.config.get(name)
    return section if isinstance(section, Mapping) else {}
