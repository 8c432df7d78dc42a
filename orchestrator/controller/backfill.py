"""Who goes first on a pool, and who may pass those that wait for more than is free.

The line is by priority, then by who came first. Chips that the ones ahead can't use now need not
lie idle: who fits beside all of them that fit may pass. Nobody passes one that has waited for
`SECONDS_OF_PASSING`, so that a stream of small runs can't keep a large one waiting for ever.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.messages import PoolStatus, Queued

SECONDS_OF_PASSING = 3600.0


def held_up_by(
    mine: Queued, queue: Iterable[Queued], status: PoolStatus | None, now: float
) -> Queued | None:
    """Return who keeps `mine` waiting at `now` (seconds, epoch); `None` where it may start.

    Without the `status` of its pool nobody passes anybody.
    """
    ahead = sorted(
        (
            entry
            for entry in queue
            if entry.pool == mine.pool and entry.run != mine.run and entry.order < mine.order
        ),
        key=lambda entry: entry.order,
    )
    if not ahead or status is None:
        return ahead[0] if ahead else None
    left = status.free
    for entry in ahead:
        if entry.devices <= left:
            left -= entry.devices
        elif now - entry.since > SECONDS_OF_PASSING:
            return entry
    return ahead[0] if mine.devices > left else None
