"""The environment variables of a worker: where it is among the others, as torchrun says it.

Several attempts may run in one process one after the other, or (`cluster=local`) at once: what one
of them sets is gone when it ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from orchestrator.core.spec.environment_variables import OF_A_PLACE
from orchestrator.messages import AttemptRequest
from orchestrator.node import rendezvous_port

ALONE = "127.0.0.1"  # where a gang of one is met, by nobody

_lock = threading.Lock()
_layers: list[Mapping[str, str]] = []
_before: dict[str, str | None] = {}


def variables(request: AttemptRequest, rank: int, rendezvous: str | None) -> dict[str, str]:
    """Return what the environment of worker `rank` says beside what its node says."""
    node_ranks = request.node_ranks or (0,) * request.needs.workers
    node = node_ranks[rank]
    host, _, port = (rendezvous or rendezvous_port.free(ALONE)).rpartition(":")
    place = (
        rank,
        request.needs.workers,
        request.local_rank(rank),
        node_ranks.count(node),
        node,
        node,
        host.strip("[]"),
        port,
    )
    named = zip(OF_A_PLACE, map(str, place), strict=True)
    return {**request.env, **request.secrets, **dict(named)}


@contextmanager
def applied(values: Mapping[str, str]) -> Iterator[None]:
    """Have the environment of this process say `values`, over what it says else."""
    layer = dict(values)  # one of its own, to be told from others that say the same
    with _lock:
        for name in layer:
            _before.setdefault(name, os.environ.get(name))  # noqa: TID251 - what jobs read is set here
        _layers.append(layer)
        _apply(layer)
    try:
        yield
    finally:
        with _lock:
            _layers[:] = [other for other in _layers if other is not layer]
            _apply(layer)


def _apply(names: Mapping[str, str]) -> None:
    """Have the environment say of `names` what the last layer does, or what it said before."""
    for name in names:
        values = [layer[name] for layer in _layers if name in layer]
        value = values[-1] if values else _before.pop(name)
        if value is None:
            os.environ.pop(name, None)  # noqa: TID251 - as above
        else:
            os.environ[name] = value  # noqa: TID251 - as above
