"""What a registry of models says of those that endpoints serve, told from runs and endpoints.

A version is a model on a pool: the same weights on another maker's pool are another version,
with a verdict of their own. Aliases: `candidate` is the newest that may be served, `champion` the
one that has all traffic, or that somebody promoted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.endpoints.life import EndpointLife
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.run import Run, StageRun
from orchestrator.core.runs.states import StageState
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.parity import guards
from orchestrator.core.trust.qualification import Verdict

CANDIDATE, CHAMPION = "candidate", "champion"
KEY, PARITY = "orchestrator.key", "parity"
FIGURES = "parity/"  # what metrics of a guard begin with


class Parity(StrEnum):
    """Whether what is served was compared with what was trained, on the pool that serves it."""

    PASSED = "passed"
    FAILED = "failed"
    PENDING = "pending"
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"
    NOT_COMPARED = "not compared"


# A pipeline without such a stage has nothing that could fail: its models are candidates too.
MAY_SERVE = frozenset({Parity.PASSED, Parity.NOT_COMPARED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A version as it ought to stand in the registry.

    Attributes:
        name: Of the model: that of its endpoint.
        key: What makes the version: its contents and its pool.
        exporter: The stage that made it, with the attempt, where this run did.
        guard: The stage that compared it, with the attempt, where this run did.
        model: The artifact.
        tags: Its lineage.
        figures: Of its comparison.
    """

    name: str
    key: str
    exporter: tuple[str, int] | None
    guard: tuple[str, int] | None
    model: ArtifactRef
    tags: Mapping[str, str]
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A version as it stands in the registry; `created` is seconds since the epoch.

    `run_id` is the MLflow run that it comes from; empty where it is from none.
    """

    name: str
    number: int
    source: str = ""
    run_id: str = ""
    created: float = 0.0
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What makes the version; empty where somebody else has made it."""
        return self.tags.get(KEY, "")

    @property
    def model_id(self) -> str:
        """The logged model that it stands for; empty where it is of another kind."""
        return self.source.removeprefix("models:/") if self.source.startswith("models:/m-") else ""

    @property
    def parity(self) -> str:
        """What is known of its comparison with what was trained."""
        return self.tags.get(PARITY, str(Parity.NOT_COMPARED))


def key_of(model: ArtifactRef, pool: str) -> str:
    """Return what makes a version."""
    return f"{model.digest}@{pool}"


def candidate(versions: Sequence[ModelVersion]) -> ModelVersion | None:
    """Return the newest version that may be served."""
    able = [version for version in versions if version.key and version.parity in MAY_SERVE]
    return max(able, key=lambda version: version.number, default=None)


def leader(life: EndpointLife) -> tuple[float, str] | None:
    """Return when one version last got all traffic (seconds, epoch), and its key.

    The key is empty where that revision runs outside.
    """
    for move in reversed(life.moves):
        numbers = [number for number, share in move.shares.items() if share]
        if len(numbers) == 1:
            revision = life.revisions[numbers[0]]
            deployment = revision.deployment
            key = key_of(deployment.model, deployment.pool.name) if deployment else ""
            return max(move.at, revision.updated), key
    return None


# --- from a run -------------------------------------------------------------------------------


def entries(run: Run) -> Iterator[Entry]:
    """Yield the versions of a run: one for each endpoint whose model is there."""
    for serving in run.stages.values():
        endpoint = serving.planned.stage.endpoint
        source = serving.planned.stage.inputs.get(endpoint.model) if endpoint else None
        exported = run.stages.get(source or "")
        if endpoint and exported and exported.artifact:
            yield _entry(run, endpoint.name, serving, exported, exported.artifact)


def with_figures(entry: Entry, figures: Mapping[str, float]) -> Entry:
    """Return `entry` with the figures of its comparison, in its tags too."""
    texts = {key.replace("/", "."): f"{value:.6g}" for key, value in figures.items()}
    return replace(entry, figures=figures, tags={**entry.tags, **texts})


def with_verdict(entry: Entry, verdict: Verdict | None) -> Entry:
    """Return `entry` with what its pool had earned when the version was made."""
    if verdict is None:
        return replace(entry, tags={**entry.tags, "qualification": "not qualified"})
    texts = {
        "qualification": str(verdict.standing),
        "qualification.run": verdict.run,
        "qualification.reasons": "; ".join(verdict.reasons),
    }
    return replace(
        entry, tags={**entry.tags, **{key: text for key, text in texts.items() if text}}
    )


def _entry(
    run: Run, name: str, serving: StageRun, exported: StageRun, model: ArtifactRef
) -> Entry:
    stages = [stage.planned.stage for stage in run.stages.values()]
    passed = [run.stages[guard.name] for guard in guards(stages, serving.planned.stage)]
    guard = passed[0] if passed else None
    figures = {
        key: value
        for guard in passed
        for key, value in guard.metrics.items()
        if key.startswith(FIGURES)
    }
    entry = Entry(
        name=name,
        key=key_of(model, serving.pool),
        exporter=_latest(exported),
        guard=_latest(guard) if guard else None,
        model=model,
        tags={
            KEY: key_of(model, serving.pool),
            **_lineage(run, exported),
            **_place(run, serving),
            **_comparison(passed, serving.pool),
            "artifact.uri": model.uri,
            "artifact.digest": model.digest,
        },
        figures={},
    )
    return with_figures(entry, figures)


def _latest(stage: StageRun) -> tuple[str, int] | None:
    return (stage.name, stage.attempts[-1].number) if stage.attempts else None


def _lineage(run: Run, exported: StageRun) -> dict[str, str]:
    """Return where a model comes from: the run, the data, the config, the code."""
    before = list(_upstream(run, exported))
    data = [stage for stage in before if stage.planned.stage.role is Role.PREPARE]
    header = run.header
    tags = {
        "run": exported.reused_from or header.run,
        "registered_by": header.run,
        "stage": exported.name,
        "attempt": str(exported.attempts[-1].number) if exported.attempts else "",
        "pipeline": run.plan.pipeline,
        "config.digest": digest_of(header.config),
        "data.digest": digest_of([stage.artifact.digest for stage in data if stage.artifact]),
        "git.commit": header.tags.get("mlflow.source.git.commit", ""),
        **{f"input.{stage.name}": stage.artifact.digest for stage in before if stage.artifact},
    }
    return {key: value for key, value in tags.items() if value}


def _upstream(run: Run, stage: StageRun) -> Iterator[StageRun]:
    """Yield the stages whose artifacts went into that of `stage`, each once, in their order."""
    reads = set(stage.planned.stage.inputs.values())
    for stage_run in reversed(list(run.stages.values())):
        if stage_run.name in reads:
            reads |= set(stage_run.planned.stage.inputs.values())
    return (stage_run for stage_run in run.stages.values() if stage_run.name in reads)


def _place(run: Run, serving: StageRun) -> dict[str, str]:
    planned, pool = serving.planned, run.plan.pools[serving.pool]
    formats = dict(zip(planned.pools, planned.formats, strict=False))
    return {
        "pool": pool.name,
        "accelerator": pool.accelerator.name,
        "emulated": "true" if pool.emulated else "false",
        "format": formats.get(serving.pool, ""),
    }


def _comparison(passed: Sequence[StageRun], pool: str) -> dict[str, str]:
    """Return the verdict over all guards: the first that is not passed tells."""
    if not passed:
        return {PARITY: str(Parity.NOT_COMPARED)}
    verdicts = [(_verdict(stage, pool), stage) for stage in passed]
    verdict, stage = next((pair for pair in verdicts if pair[0] is not Parity.PASSED), verdicts[0])
    reason = stage.reason if verdict is Parity.FAILED else ""
    return {PARITY: str(verdict), **({"parity.reason": reason} if reason else {})}


def _verdict(guard: StageRun, pool: str) -> Parity:
    if guard.state is StageState.SUCCEEDED:
        return Parity.PASSED if guard.pool == pool else Parity.ELSEWHERE
    if guard.state is not StageState.FAILED:
        return Parity.UNKNOWN if guard.done else Parity.PENDING
    failure = guard.attempts[-1].failure if guard.attempts else None
    compared = failure is not None and failure.kind is FailureKind.PARITY
    return Parity.FAILED if compared else Parity.UNKNOWN


def digest_of(value: object) -> str:
    """Return the SHA-256 of a value, as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
