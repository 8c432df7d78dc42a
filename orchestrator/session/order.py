"""What shall be driven: a new run as it is ordered, or one that the event store has."""

from __future__ import annotations

import getpass
import secrets
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import wiring
from orchestrator.core.plan import Plan
from orchestrator.core.run import RunHeader
from orchestrator.core.settings import Settings
from orchestrator.messages import Succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run that shall be driven: its config, its header, its home; `reuse` of earlier results.

    `by_force` takes it over from a controller that lives, too. `kept` has results that stand as
    they are, with the run that made them.
    """

    found: Settings
    header: RunHeader
    at: Path
    reuse: bool = True
    by_force: bool = False
    kept: Mapping[str, tuple[Succeeded, str]] = field(default_factory=dict)


def new_header(found: Settings, planned: Plan, name: str = "") -> RunHeader:
    """Return the header of a new run, by `name` or that of its pipeline; ids sort by time."""
    now = wiring.clock().now()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    return RunHeader(
        run=f"{name or found.pipeline.name}-{stamp}-{secrets.token_hex(2)}",
        plan=planned,
        config=wiring.pinned(found),
        overrides=found.overrides,
        tags={**_origin(), **found.tags},
        created=now,
    )


def _origin() -> dict[str, str]:
    """Return who starts a run, from where, by MLflow's own tag names."""
    tags = {
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": "orchestrator launch",
        "mlflow.source.type": "LOCAL",
    }
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
        capture_output=True,
        text=True,
        check=False,
    )
    if git.returncode == 0:
        tags["mlflow.source.git.commit"] = git.stdout.strip()
    return tags
