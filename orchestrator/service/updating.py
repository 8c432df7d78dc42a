"""Live weights: a revision takes the model of a registered version while it answers.

No request is dropped, and each answer names the weights that made it.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator import wiring
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.endpoints.life import Deployment, EndpointLife, RevisionUpdated
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.trust.model_versions import ModelVersion, Parity
from orchestrator.endpoints import updates
from orchestrator.endpoints.revisions import Revisions
from orchestrator.service.change import Change
from orchestrator.service.endpoints import served_life
from orchestrator.service.models import choose, versions


def update(
    endpoint: str, model: str, version: int, *, start: bool = True
) -> Change[Sequence[str]] | str:
    """Have the revision that leads serve a version; return what has become of it, in lines.

    Return a line where it serves that already.

    Raises:
        NotFoundError: The endpoint is not served, or there is no such version.
        ConfigError: The replicas can't take it, or it is known not to be what was trained.
    """
    life = served_life(endpoint)
    deployment = life.leading.deployment if life.leading else None
    if deployment is None:
        name = life.leading.name if life.leading else ""
        what = f"{name} of {life.name!r} is outside: its weights are somebody else's"
        raise ConfigError([Problem("update", what, "switch the endpoint to a pool first")])
    chosen = choose(model, version, versions(model, start=start))
    ref = model_of(chosen, deployment)
    updated = RevisionUpdated(deployment.revision, ref, f"{chosen.name}/{chosen.number}")
    if (deployment.weights, deployment.model.digest) == (updated.version, ref.digest):
        return f"{deployment.name} serves {updated.version} already."
    what = f"have {deployment.name} on {deployment.pool.name} serve {updated.version}"
    return Change(f"{what} in the place of {deployment.weights}", lambda: _update(life, updated))


def model_of(version: ModelVersion, deployment: Deployment) -> ArtifactRef:
    """Return the model of a version, which the replicas of `deployment` are to take.

    Raises:
        ConfigError: They can't, or it is known not to be what was trained.
    """
    tags, name = version.tags, f"version {version.number} of {version.name!r}"
    uri, digest = tags.get("artifact.uri", ""), tags.get("artifact.digest", "")
    weights_format, root = tags.get("format", ""), deployment.storage.rstrip("/") + "/"
    if not uri or not digest:
        raise _refused(f"{name} names no artifact", "name one that a run has made")
    if weights_format and weights_format != deployment.format:
        what = f"{name} is {weights_format}, and {deployment.name} serves {deployment.format}"
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


def _update(life: EndpointLife, updated: RevisionUpdated) -> Sequence[str]:
    home = wiring.home()
    store = wiring.database(home)
    replicas = wiring.replicas(home, wiring.serving_cluster(home))
    revisions = Revisions(store, replicas, wiring.clock())
    number, late = updates.update(revisions, replicas, life, updated)
    wiring.follow_traffic(home, store.endpoint(life.name))
    name = f"{life.name}.r{updated.number}"
    lines = [f"{why}; the reconciler updates it" for why in late]
    if number:
        return [f"{name} serves {updated.version} (replicas: {number}).", *lines]
    return lines or [f"{name} has no replica now; the next one serves {updated.version}."]
