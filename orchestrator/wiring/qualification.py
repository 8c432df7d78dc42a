"""What is known of the pools: the verdicts of the event store, and what they leave of a plan."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from orchestrator.core.hardware import Role
from orchestrator.core.plan import Plan
from orchestrator.core.qualification import EARNED, Finding, Status, Verdict, Vetted, vet
from orchestrator.core.run import Run
from orchestrator.core.settings import Settings
from orchestrator.wiring.adapters import (
    artifact_store,
    clock,
    event_store,
    has_store,
    storage_uri,
)
from orchestrator.wiring.home_folder import home_path

REPORT_NAME = "report.json"


def verdicts() -> Sequence[Verdict]:
    """Return all verdicts; none where this home has no store yet, which is not made for that."""
    at = home_path()
    if not has_store(at):
        return ()
    return event_store(at).verdicts()


def vetted(
    found: Settings,
    made: Plan,
    *,
    unqualified: bool = False,
    roles: Collection[Role] = EARNED,
) -> Vetted:
    """Return what of a plan may be used; all of it where `unqualified` pools may be."""
    if unqualified:
        return Vetted(plan=made)
    return vet(made, verdicts(), found.qualification, clock().now(), roles)


def findings(found: Settings, at: Path, run: Run) -> Iterator[Finding]:
    """Yield what the stages of a qualification found.

    Raises:
        ArtifactError: A report is not there, or was altered.
    """
    store = artifact_store(storage_uri(found, at))
    for stage in run.stages.values():
        if stage.artifact is not None:
            text = (store.fetch(stage.artifact) / REPORT_NAME).read_text("utf-8")
            yield from map(_finding, json.loads(text)["findings"])


def _finding(told: dict[str, object]) -> Finding:
    roles = told["roles"]
    return Finding(
        check=str(told["check"]),
        subject=str(told["subject"]),
        status=Status(str(told["status"])),
        note=str(told["note"]),
        roles=tuple(map(Role, roles)) if isinstance(roles, list) else (),
    )
