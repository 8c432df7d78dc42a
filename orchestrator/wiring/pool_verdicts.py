"""What is known of the pools: the verdicts of the database, and what they leave of a plan."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.core.errors import ClusterError
from orchestrator.core.runs.fold import fold
from orchestrator.core.runs.run import Run
from orchestrator.core.settings import Settings
from orchestrator.core.spec.hardware import Pool, Role
from orchestrator.core.spec.plan import Plan
from orchestrator.core.spec.stages import Json
from orchestrator.core.trust.qualification import (
    EARNED,
    Finding,
    Status,
    Verdict,
    Vetted,
    trusted_pools,
    vet,
)
from orchestrator.wiring.adapters import (
    clock,
    database,
    has_database,
)
from orchestrator.wiring.home_folder import home_path
from orchestrator.wiring.host_services import node_identities
from orchestrator.wiring.serving_adapters import model_config
from orchestrator.wiring.storage import artifact_store, storage_uri

REPORT_NAME = "report.json"
_RUNS = 1000  # of all pipelines that are looked through, the newest first


def verdicts() -> Sequence[Verdict]:
    """Return all verdicts; none where this home has no store yet, which is not made for that."""
    home = home_path()
    if not has_database(home):
        return ()
    return database(home).verdicts()


def time_of_verdicts() -> float:
    """Return the time by which verdicts end: that of the database, which hosts share."""
    home = home_path()
    return database(home).now() if has_database(home) else clock().now()


def vetted(
    settings: Settings,
    plan: Plan,
    *,
    unqualified: bool = False,
    roles: Collection[Role] = EARNED,
) -> Vetted:
    """Return what of a plan may be used; all of it where `unqualified` pools may be."""
    if unqualified:
        return Vetted(plan=plan)
    known, rules, now = verdicts(), settings.qualification, time_of_verdicts()
    trusted = trusted_pools(plan, known, rules, now, roles)
    live = nodes_of(settings, home_path(), trusted)
    return vet(plan, known, rules, now, roles, live)


def nodes_of(
    settings: Settings, home: Path, pools: Mapping[str, Pool]
) -> Mapping[str, Mapping[str, str]]:
    """Return what the live nodes of `pools` are told apart by; none where no cluster answers."""
    try:
        return node_identities(settings, home, pools)
    except ClusterError:
        return {}


def config_of_last(settings: Settings, stage: str) -> Mapping[str, Json]:
    """Return the `config.json` of the model that a stage has made, by the pipeline's last run.

    It is empty where no run of the pipeline has made one.
    """
    home = home_path()
    if not has_database(home):
        return {}
    store = database(home)
    for header in store.runs(_RUNS):
        if header.plan.pipeline == settings.pipeline.name:
            run = fold(header, ((item.at, item.event) for item in store.events(header.run)))
            model = run.stages[stage].artifact if stage in run.stages else None
            config = model_config(storage_uri(settings, home), model) if model is not None else {}
            if config:
                return config
    return {}


def findings(settings: Settings, home: Path, run: Run) -> Iterator[Finding]:
    """Yield what the stages of a qualification found.

    Raises:
        ArtifactError: A report is not there, or was altered.
    """
    uri, patience = storage_uri(settings, home), settings.attempts.storage
    store = artifact_store(uri, clock(), patience)
    for stage in run.stages.values():
        if stage.artifact is not None:
            text = (store.fetch(stage.artifact) / REPORT_NAME).read_text("utf-8")
            yield from map(_finding, json.loads(text)["findings"])


def _finding(fields: dict[str, object]) -> Finding:
    roles = fields["roles"]
    return Finding(
        check=str(fields["check"]),
        subject=str(fields["subject"]),
        status=Status(str(fields["status"])),
        note=str(fields["note"]),
        roles=tuple(map(Role, roles)) if isinstance(roles, list) else (),
    )
