"""`orchestrator update ENDPOINT MODEL VERSION`: live weights, without a new revision.

The revision that leads takes the model of a registered version while it answers: no request is
dropped, and each answer names the weights that made it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from functools import partial

from orchestrator import wiring
from orchestrator.cli import endpoints, promote
from orchestrator.cli.steps import Step
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.endpoints.life import Deployment, EndpointLife, RevisionUpdated
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.trust.registry import ModelVersion, Parity
from orchestrator.endpoints import updates
from orchestrator.endpoints.revisions import Revisions


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Have the endpoint serve the version that is named."""
    store = wiring.endpoint_store(wiring.home())
    life = store.endpoint(args.endpoint)
    if life.leading is None:
        raise endpoints.not_served(args.endpoint, store.endpoints())
    deployment = life.leading.deployment
    if deployment is None:
        what = f"{life.leading.name} of {life.name!r} is outside: its weights are somebody else's"
        raise ConfigError([Problem("update", what, "switch the endpoint to a pool first")])
    with closing(wiring.registry(wiring.home(), start=not args.dry_run)) as registry:
        there = registry.versions(args.model)
    chosen = promote.choose(args.model, args.version, there)
    model = model_of(chosen, deployment)
    updated = RevisionUpdated(deployment.revision, model, f"{chosen.name}/{chosen.number}")
    if (deployment.weights, deployment.model.digest) == (updated.version, model.digest):
        print(f"{deployment.name} serves {updated.version} already.")
        return []
    what = f"have {deployment.name} on {deployment.pool.name} serve {updated.version}"
    return [Step(f"{what} in the place of {deployment.weights}", partial(_update, life, updated))]


def model_of(version: ModelVersion, deployment: Deployment) -> ArtifactRef:
    """Return the model of a version, which the replicas of `deployment` are to take.

    Raises:
        ConfigError: They can't, or it is known not to be what was trained.
    """
    tags, name = version.tags, f"version {version.number} of {version.name!r}"
    uri, digest = tags.get("artifact.uri", ""), tags.get("artifact.digest", "")
    made, root = tags.get("format", ""), deployment.storage.rstrip("/") + "/"
    if not uri or not digest:
        raise _refused(f"{name} names no artifact", "name one that a run has made")
    if made and made != deployment.format:
        what = f"{name} is {made}, and {deployment.name} serves {deployment.format}"
        raise _refused(what, "name one of that format, or switch the endpoint")
    if not uri.startswith(root):
        what = f"{name} lies at {uri!r}, and {deployment.name} reads from {root!r}"
        raise _refused(what, "switch the endpoint")
    if version.parity == Parity.FAILED:
        why = tags.get("parity.reason", "it does not answer as what was trained")
        raise _refused(f"{name} has failed its parity stage: {why}", "name another version")
    return ArtifactRef(uri, digest, 0)


def _refused(what: str, way_out: str) -> ConfigError:
    return ConfigError([Problem("update", what, way_out)])


def _update(life: EndpointLife, updated: RevisionUpdated) -> None:
    at = wiring.home()
    store, replicas = wiring.endpoint_store(at), wiring.replicas(at, wiring.serving_cluster(at))
    revisions = Revisions(store, replicas, wiring.clock())
    number, late = updates.update(revisions, replicas, life, updated)
    name = f"{life.name}.r{updated.number}"
    if number:
        print(f"{name} serves {updated.version} (replicas: {number}).")
    elif not late:
        print(f"{name} has no replica now; the next one serves {updated.version}.")
    for why in late:
        print(f"{why}; the reconciler updates it")
    wiring.follow_traffic(at, store.endpoint(life.name))
