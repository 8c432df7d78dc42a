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
            one
            for one in queue
            if one.pool == mine.pool and one.run != mine.run and one.order < mine.order
        ),
        key=lambda one: one.order,
    )
    if not ahead or status is None:
        return ahead[0] if ahead else None
    left = status.free
    for one in ahead:
        if one.devices <= left:
            left -= one.devices
        elif now - one.since > SECONDS_OF_PASSING:
            return one
    return ahead[0] if mine.devices > left else None
