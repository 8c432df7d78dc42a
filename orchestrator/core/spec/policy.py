"""What a stage does about trouble: when it waits, watches, tries again, and how it goes on.

Values alone; `core/runs/`, `worker/` and `endpoints/` read them. Times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

AUTO: Literal["auto"] = "auto"
Hanging: TypeAlias = float | Literal["auto"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where a stage stops trying. Times in seconds, cost in US dollars; `None` is no limit.

    Attributes:
        attempts: Failures in a row without a new checkpoint, on whatever pools.
        tries: Failures in a row without a new checkpoint on one pool, after which the next pool
            takes over where there is one.
        total: All attempts of the stage.
        timeout: What its attempts took together, waits for their places included. The time in
            which no controller drove the run counts for nothing.
        cost: What its attempts held.
        grace: How long an attempt that is over a limit of time or cost has to leave at its next
            checkpoint.
        grace_unsaved: The same, where that is shorter, of one that has saved none so far: its job
            may be one that saves none.
        kill_after: How long the workers of an attempt that is ended have to leave by themselves,
            and to finish the checkpoint that they are saving; then they are killed.
        pending: The wait for nodes that the pool lacks now.
        queued: The wait while others hold the pool, or go first.
        backoff: The wait before the second attempt on a pool. It doubles with each that saved no
            checkpoint, ten times at most.
    """

    attempts: int = 5
    tries: int = 2
    total: int | None = 100
    timeout: float | None = None
    cost: float | None = None
    grace: float = 300.0
    grace_unsaved: float = 30.0
    kill_after: float = 10.0
    pending: float | None = 600.0
    queued: float | None = None
    backoff: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Where a whole run stops: US dollars, seconds in which it was driven, all its attempts."""

    cost: float | None = None
    time: float | None = None
    attempts: int | None = None


UNBOUNDED = Bounds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How a stage goes on after a failure.

    Attributes:
        checkpoints: How many checkpoints a roll-back goes back.
        rate: What a roll-back multiplies the learning rate by.
        accumulate: What `lower_batch` multiplies the number of micro-batches by.
        keep: How many of the newest checkpoints are kept; one more than `checkpoints` at least.
        round_robin: Whether the first pool takes over again after the last.
        standby: Whether a gang waits on the next pool, imports done, while this one works. It
            holds its devices there.
        failback: Seconds for which a pool that comes before the present one must have had room
            until the stage goes back to it, at its next checkpoint; twice as long after each
            time. With `None` it stays where it fell back to.
    """

    checkpoints: int = 1
    rate: float = 0.5
    accumulate: int = 2
    keep: int = 3
    round_robin: bool = False
    standby: bool = False
    failback: float | None = None

    @property
    def kept(self) -> int:
        """How many checkpoints are kept: enough for a roll-back to find the one it goes to."""
        return max(self.keep, self.checkpoints + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What counts as a hang, and as a loss that went astray.

    Attributes:
        hang: Seconds without a sign of life, after the first step, in which the job stands at one
            place and its process does nothing; several times as long where it works. `auto` is
            what `attempts` says: ten minutes, or twenty steps of the job where those are longer;
            `None` waits for ever.
        metric: The metric whose values are watched.
        window: Newest values that a new one is compared with; 0 watches for NaN and infinity
            alone.
        deviations: A value further above the mean of the window than so many standard deviations
            is a spike.
        patience: Spikes in a row that are a divergence.
    """

    hang: Hanging = AUTO
    metric: str = "train/loss"
    window: int = 20
    deviations: float = 10.0
    patience: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a stage waits for outside of the pipeline, before its first attempt.

    Attributes:
        kind: `file` (or a glob) that exists, `count` lines of a file or files of a glob, `url`
            that answers 200, `approval` by `orchestrator approve RUN STAGE`.
        target: The path, glob or URL; a note for who approves. The host that drives the run looks.
        least: How many a `count` must find.
        deadline: Seconds to wait; `None` is no deadline.
        then: What follows at the deadline: `wait` on, `stop`, or `go_on` with what is there.
        shared: Whether every host that may drive the run sees the path.
        timeout: Seconds within which a `url` must answer, each time that it is asked.
    """

    kind: Literal["file", "count", "url", "approval"]
    target: str = ""
    least: int = 1
    deadline: float | None = None
    then: Literal["wait", "stop", "go_on"] = "stop"
    shared: bool = False
    timeout: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """How a new revision of an endpoint takes over from the one that leads.

    Attributes:
        steps: Percent of the traffic that it gets, one after the other; without steps it gets
            none until somebody moves traffic. The first revision gets all at once.
        hold: Seconds at each step, at the least; after the last one the old revision is retired.
        requests: Requests that it must have answered at a step before the next one. Where fewer
            come, the rollout asks both revisions itself until it has the number.
        error_rate: How much larger its share of requests without success may be than that of the
            old one; refusals (400 and the like) that the old one does not give count.
        slower: How many times as long as the old one it may take to the first token, a token, or
            for a whole answer.
        probes: Prompts that both are asked before any traffic moves, and while it is thin; some
            of our own where there are none.
        agreement: Share of the probes that both must answer alike, where one model is served by
            both and one of them tells no log-probabilities; else those are compared.
        shadow: Whether it gets copies of requests during one hold before the first step.
        overflow: Whether it takes over nothing: it gets what finds no room at the others, alone.
        certainty: The Bayes factor from which it fails more than the old one; at most one good
            revision of so many is sent back by it.
        doubt: Seconds beyond `hold` that a step may be without a verdict until it is sent back.
        answer: Seconds that the first revision may take to answer through the gateway.
    """

    steps: tuple[int, ...] = (5, 25, 100)
    hold: float = 10.0
    requests: int = 20
    error_rate: float = 0.02
    slower: float = 2.0
    probes: tuple[str, ...] = ()
    agreement: float = 0.9
    shadow: bool = False
    overflow: bool = False
    certainty: float = 300.0
    doubt: float = 600.0
    answer: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjust:
    """What an attempt does otherwise than its stage's parameters say, because of a failure.

    Attributes:
        accumulate: Factor on the number of micro-batches; the batch stays the same.
        rate: Factor on the learning rate.
        before: Only checkpoints of steps below this one may be resumed from.
    """

    accumulate: int = 1
    rate: float = 1.0
    before: int | None = None


AS_PLANNED = Adjust()
