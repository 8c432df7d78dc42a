"""The artifact store: where it is, who can see it, and the proof that all pools do."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from orchestrator.core.address_passwords import holds_password, password_problems
from orchestrator.core.artifact import ANY_ROOM, CacheRoom
from orchestrator.core.errors import ArtifactError, Problem, StorageSetUpError
from orchestrator.core.settings import PATIENT, Settings
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.storage_uris import Sight, bucket_objection, read_only, seen_by
from orchestrator.ports import ArtifactStore, Clock
from orchestrator.wiring.secret_values import secret

# Of S3; other storages that fsspec knows have theirs by FSSPEC_NAME_FIELD.
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or FSSPEC_... of its protocol"
CACHE_VARIABLE = "ORCHESTRATOR_CACHE"  # set on a node whose disk for it is another folder
_MARKS = "marks"  # the folder of what pools are to read


def storage_uri(settings: Settings, home: Path) -> str:
    """Return the base URI of the artifact store."""
    return settings.storage.uri or (home / "artifacts").as_uri()


def artifact_store(
    uri: str,
    clock: Clock | None = None,
    patience: float = PATIENT.storage,
    room: CacheRoom = ANY_ROOM,
) -> ArtifactStore:
    """Return the artifact store at `uri`; with a `clock` it waits for what may pass.

    `room` is what this host may keep of it.
    """
    from orchestrator.adapters.artifacts import FsspecArtifactStore

    return FsspecArtifactStore(uri, clock=clock, patience=patience, room=room_here(room))


def room_here(room: CacheRoom) -> CacheRoom:
    """Return what this host may keep of artifacts: in its own folder, where it names one."""
    folder = os.environ.get(CACHE_VARIABLE)
    return replace(room, folder=folder) if folder else room


def cache_folder(room: CacheRoom) -> Path:
    """Return the folder that holds the cache of this host; it may not be there yet."""
    from orchestrator.adapters.artifacts.node_cache import parent_of

    return parent_of(room_here(room).folder)


def problems(settings: Settings, cluster: str) -> Iterator[Problem]:
    """Yield why no run can use the artifact store: this host can't, or others don't see it.

    `cluster` is the address of a cluster that is not ours to start.
    """
    from orchestrator.adapters import artifacts

    storage = settings.storage
    protocol = read_only(storage.uri)
    if protocol:
        what = f"what {protocol}:// names can be read alone, and runs write there"
        yield Problem("storage.uri", what, "name a bucket (s3://BUCKET/...) or a folder")
        return
    if holds_password(storage.uri):
        yield from password_problems("storage.uri", storage.uri, _CREDENTIALS)
        return
    lacks = bucket_objection(storage.uri) or artifacts.lacking(storage.uri)
    if lacks:
        what, _, hint = lacks.partition("; ")
        yield Problem("storage.uri", what, hint)
        return
    if settings.cluster.kind != "ray":
        return
    seen = seen_by(storage.uri)
    if seen is Sight.PROCESS:
        what = f"{storage.uri!r} is the memory of one process, and a cluster has several"
        hint = "name what all of them see (s3://BUCKET/...), or set cluster=local"
        yield Problem("storage.uri", what, hint)
    elif cluster and not storage.shared and seen is Sight.HOST:
        what = f"{storage.uri!r} is a folder of this host, not seen by the cluster at {cluster!r}"
        hint = "name what all its hosts see (s3://BUCKET/...), or set storage.shared=true"
        yield Problem("storage.uri", what, hint)


def gate_problems(settings: Settings, cluster: str) -> Iterator[Problem]:
    """Yield the gates that whoever drives the run can't look at, or may not see.

    `cluster` is the address of a cluster that is not ours to start.
    """
    from orchestrator.adapters import artifacts

    foreign = cluster and settings.cluster.kind == "ray"
    for stage in settings.pipeline.stages:
        gate, path = stage.gate, f"pipeline.stages.{stage.name}.gate.target"
        if gate is None or gate.kind not in {"file", "count"}:
            continue
        lacks = artifacts.lacking(gate.target)
        if lacks:
            what, _, hint = lacks.partition("; ")
            yield Problem(path, what, hint)
        elif foreign and not gate.shared and seen_by(gate.target) is Sight.HOST:
            what = f"{gate.target!r} is looked for on the host that drives the run, which may be"
            hint = "name what all its hosts see (s3://BUCKET/...), or set gate.shared=true"
            yield Problem(path, f"{what} one of the cluster at {cluster!r}", hint)


def prove_storage_here(settings: Settings, home: Path, run: str) -> None:
    """Have this host read what it writes to the artifact store that `settings` name.

    Raises:
        StorageSetUpError: It can't.
    """
    if not settings.storage.uri:  # the home's own folder
        return
    from orchestrator.adapters.clock import SystemClock

    uri, name, text = storage_uri(settings, home), f"{_MARKS}/{run}", secrets.token_hex(8)
    try:
        store = artifact_store(uri, SystemClock(), settings.attempts.storage)
        store.mark(name, text)
        unlike = store.marked(name) != text
        store.remove(name)
    except ArtifactError as error:
        raise StorageSetUpError(f"storage.uri {uri!r} can't be used: {error}") from error
    if unlike:
        what = "what was written there is not to be seen"
        raise StorageSetUpError(f"storage.uri {uri!r} can't be used: {what}")


def prove_storage(
    settings: Settings,
    home: Path,
    run: str,
    pools: Mapping[str, Pool],
    drained: Mapping[str, Collection[str]],
) -> None:
    """Have every live node of `pools` read what this host writes to the artifact store.

    This process is connected to their cluster. Nodes that are `drained`, by pool, are not asked,
    nor is one that is too busy to start a process: what it can't read its first attempt says.

    Raises:
        StorageSetUpError: A node can't read it; names the pool, the nodes and the storage.
        ArtifactError: This host can't write it.
    """
    from orchestrator.adapters.clock import SystemClock
    from orchestrator.adapters.raycluster import host_questions

    uri, name, text = storage_uri(settings, home), f"{_MARKS}/{run}", secrets.token_hex(8)
    store = artifact_store(uri, SystemClock(), settings.attempts.storage)
    seconds = settings.storage.answer
    store.mark(name, text)

    def question(pool: Pool) -> Callable[[], str]:
        given = ((name, secret(source)) for name, source in pool.secret_sources.items())
        values = {name: value for name, value in given if value is not None}
        return partial(unread, uri, name, text, values, settings.storage.proof)

    try:
        answers = host_questions.ask(pools, question, seconds, seconds, drained)
    finally:
        store.remove(name)
    unable = next((answer for answer in answers if answer.text), None)
    if unable is not None:
        alike = [a.node for a in answers if (a.pool, a.text) == (unable.pool, unable.text)]
        where = f"on its node{'s' * (len(alike) > 1)} {', '.join(map(repr, alike))}"
        what = f"pool {unable.pool!r} can't use storage.uri {uri!r} {where}"
        raise StorageSetUpError(f"{what}: {unable.text}")


def unread(uri: str, name: str, text: str, variables: Mapping[str, str], patience: float) -> str:
    """Return why this host can't read the mark `name`, which says `text`; empty where it can.

    It tries for `patience` seconds. The environment says `variables` meanwhile.
    """
    from orchestrator.adapters.clock import SystemClock
    from orchestrator.worker import rank_environment

    try:
        with rank_environment.applied(variables):
            read = artifact_store(uri, SystemClock(), patience).marked(name)
    except ArtifactError as error:
        return str(error)
    if read == text:
        return ""
    return "what the controller wrote there is not to be seen; name a storage that both see"
