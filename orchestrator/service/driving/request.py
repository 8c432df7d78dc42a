"""What shall be driven: a new run, or one that the database has."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import wiring
from orchestrator.core.errors import NotFoundError
from orchestrator.core.runs.fleet_on_cluster import HOME, HOST
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.settings import Settings
from orchestrator.core.spec.plan import Plan
from orchestrator.messages import Succeeded
from orchestrator.ports import EventLog

BYTES_OF_AN_ID = 4
MACHINE = "orchestrator.machine"  # the tag that tells that from others of its name


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveRequest:
    """A run that shall be driven: its config, its header, its home; `reuse` of earlier results.

    Use cases that start a run, or have it go on, make it; `drive` and what that calls read it.
    `by_force` takes it over from a controller that lives, too. `kept_results` stand as they
    are, with the run that made them. `by` is the reaper that has it go on, if one does.
    """

    settings: Settings
    header: RunHeader
    home: Path
    reuse: bool = True
    by_force: bool = False
    by: str = ""
    kept_results: Mapping[str, tuple[Succeeded, str]] = field(default_factory=dict)


def new_header(
    settings: Settings,
    planned: Plan,
    name: str = "",
    *,
    home: Path,
    continues: str = "",
    flags: tuple[str, ...] = (),
) -> RunHeader:
    """Return the header of a new run of `home`, by `name` or that of its pipeline.

    Ids sort by time, and no other run has the same. The run goes on from the checkpoints of the
    run `continues`, where one is named. `flags` chose its config, beside the overrides.
    """
    store = wiring.database(home)
    now = store.now()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    return RunHeader(
        run=_free(store, f"{name or settings.pipeline.name}-{stamp}"),
        plan=planned,
        config=wiring.pinned(settings),
        overrides=settings.overrides,
        flags=flags,
        tags={**_origin(home), **settings.tags},
        created=now,
        continues=continues,
    )


def _free(store: EventLog, stem: str) -> str:
    """Return an id that begins with `stem` and that no run has."""
    while True:
        run = f"{stem}-{secrets.token_hex(BYTES_OF_AN_ID)}"
        try:
            store.header(run)
        except NotFoundError:
            return run


def from_here(tags: Mapping[str, str]) -> bool:
    """Return whether a run with these tags was launched from this machine.

    Others may have its name, and it has another identity after each start: then its home tells.
    """
    if tags.get(HOST, wiring.host()) != wiring.host():
        return False
    own = tags.get(MACHINE) in {None, wiring.machine()}
    return own or tags.get(HOME) == wiring.home_id(wiring.home())


def from_namesake(tags: Mapping[str, str]) -> bool:
    """Return whether a run with these tags was launched from another machine of this name."""
    return tags.get(HOST) == wiring.host() and not from_here(tags)


def _origin(home: Path) -> dict[str, str]:
    """Return who starts a run, from where, by MLflow's own tag names."""
    tags = {
        "mlflow.user": wiring.user(),
        "mlflow.source.name": "orchestrator launch",
        "mlflow.source.type": "LOCAL",
        HOST: wiring.host(),
        MACHINE: wiring.machine(),
        HOME: wiring.home_id(home),
    }
    commit = wiring.commit()
    return {**tags, "mlflow.source.git.commit": commit} if commit else tags
