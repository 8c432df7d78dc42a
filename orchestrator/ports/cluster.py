"""Where jobs run: the processes of their workers, and the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from orchestrator.core.spec.hardware import Pool
from orchestrator.messages import AttemptRequest, Message, PoolStatus


class Worker(Protocol):
    """What runs in each worker process of an attempt: `wiring.run_worker`.

    Yields batches of messages until, last of all, exactly one `Succeeded` or `Failed`; never
    raises. Batches, because each costs a remote call's time while the job trains.
    """

    def __call__(
        self, request: AttemptRequest, *, rank: int, rendezvous: str | None
    ) -> Iterator[Sequence[Message]]:
        """Run the job as worker `rank`; `rendezvous` is `HOST:PORT` of rank 0's store."""
        ...


class Warm(Protocol):
    """What runs in a process that stands by for an attempt: `wiring.warm_worker`."""

    def __call__(self, request: AttemptRequest) -> None:
        """Import what an attempt like `request` needs; whatever that raises ends the process."""
        ...


class Chip(Protocol):
    """What an attempt tells of the job that runs on an emulated chip: steps, at which it may fail.

    Both calls may raise whatever the chip's own software would.
    """

    def reached(self, step: int) -> None:
        """The job has named `step`, in its own count; each step counts once, in order."""
        ...

    def resumed(self, step: int) -> None:
        """The job goes on from the checkpoint of `step`."""
        ...


class Cluster(Protocol):
    """Where attempts of jobs run. No call blocks for longer than a placement probe."""

    def start(self, request: AttemptRequest) -> None:
        """Ask for an attempt. All that follows, infeasible placement too, comes by `poll`."""
        ...

    def poll(self, key: str) -> Sequence[Message]:
        """Return what attempt `key` said since the last call, oldest first.

        After `Succeeded` or `Failed`, which come once and last, everything the attempt held
        (processes, placement) is given back.

        Raises:
            ClusterError: The whole cluster is gone, and with it every attempt.
        """
        ...

    def cancel(self, key: str) -> None:
        """End attempt `key` and give back what it holds; nothing more comes from `poll`.

        Its workers are asked first, and have the request's `kill_after` seconds to leave, and to
        finish the checkpoint that they are saving.
        """
        ...

    def prepare(self, request: AttemptRequest) -> None:
        """Have workers for an attempt like `request` stand by, so that it starts quickly.

        They hold its place on its pool. Only a help: what can't be prepared is left.
        """
        ...

    def release(self, run: str, stage: str) -> None:
        """Send away those that stand by for `stage`, if any do."""
        ...

    def pools(self, wanted: Mapping[str, Pool]) -> Mapping[str, PoolStatus]:
        """Return the live state of the `wanted` pools.

        Raises:
            ClusterError: The cluster can't be reached.
        """
        ...

    def close(self) -> None:
        """Cancel what still runs and leave the cluster. Safe to call twice."""
        ...


class ClusterJob(Protocol):
    """A command that runs on the cluster by itself."""

    def status(self) -> str:
        """Return what it is: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED; empty if unknown."""
        ...

    def last_words(self) -> str:
        """Return the last lines of what it printed, as one line."""
        ...

    def stop(self) -> None:
        """End it, if it runs."""
        ...


class ForeignHead(Protocol):
    """The head of a cluster that is not ours, as far as runs are handed over to it."""

    def is_here(self, host: str) -> bool:
        """Return whether `host` is an address, or a name, of this machine."""
        ...

    def token(self) -> str:
        """Return what this process shows to the cluster; empty where it has nothing to show."""
        ...

    def job_server(self, address: str) -> str:
        """Return the URL of the job server of the cluster at `address`.

        Raises:
            ClusterError: There is none.
        """
        ...

    def check(self, server: str) -> None:
        """Check that the job server at the URL `server` answers, and lets this process in.

        Raises:
            ClusterError: It does not.
        """
        ...

    def submit(self, server: str, words: Sequence[str], files: Mapping[str, bytes]) -> ClusterJob:
        """Run the command `words` as a job of `server`, in a folder that holds `files`.

        Raises:
            ClusterError: It refuses the job.
        """
        ...
