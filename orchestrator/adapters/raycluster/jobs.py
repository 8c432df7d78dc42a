"""Controllers that outlive the command that started them: Ray jobs on the cluster's head.

Ray's own job server keeps them; their output is in its dashboard.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.adapters.raycluster import access, managed_ray
from orchestrator.core.errors import ClusterError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_LAST_LINES = 5


class Job:
    """A job of the cluster, as it was handed over."""

    def __init__(self, client: JobSubmissionClient, name: str) -> None:
        """Ask nothing yet."""
        self._client, self.name = client, name

    def status(self) -> str:
        """Return what it is: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED; empty if unknown."""
        try:
            return str(self._client.get_job_status(self.name).value)
        except (ConnectionError, RuntimeError, ValueError):
            return ""

    def last_words(self) -> str:
        """Return the last lines of its log, as one line; empty where it said nothing."""
        try:
            log: str = self._client.get_job_logs(self.name)
            said = log or self._client.get_job_info(self.name).message or ""
        except (ConnectionError, RuntimeError, ValueError):
            return ""
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return " | ".join(lines[-_LAST_LINES:])

    def stop(self) -> None:
        """End it, if it runs."""
        with suppress(ConnectionError, RuntimeError, ValueError):
            self._client.stop_job(self.name)


def submit(home: Path, address: str, words: Sequence[str], environment: Mapping[str, str]) -> Job:
    """Run the command `words` as a job with `environment` added; return the job.

    `address` is that of a foreign cluster, or of its job server (`http://HOST:8265`); empty for
    the managed cluster of `home`.

    Raises:
        ClusterError: No job server answers, or it refuses the job.
    """
    from ray.job_submission import JobSubmissionClient

    where = _job_server(address) if address else _managed(home)
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        client = JobSubmissionClient(where)
        name: str = client.submit_job(
            entrypoint=shlex.join(words), runtime_env={"env_vars": dict(environment)}
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        message = f"the job server at {where!r} refuses the launch: {reason}"
        raise ClusterError(message) from error
    return Job(client, name)


def _managed(home: Path) -> str:
    running = managed_ray.find(home)
    if running is None:
        raise ClusterError(f"no cluster of {str(home)!r} is up to run a detached launch on")
    return running.dashboard


def _job_server(address: str) -> str:
    """Return the job server of the cluster at `address`, which only the cluster itself knows."""
    if "://" in address:
        return address
    import ray

    joined = access.connect(address)
    try:
        known: str = ray._private.worker.global_worker.node.address_info["webui_url"]  # noqa: SLF001 - as Ray's own client finds it
    finally:
        if joined:
            access.leave()
    if not known:
        raise ClusterError(f"the Ray cluster at {address!r} has no dashboard, hence no job server")
    return f"http://{known}"
