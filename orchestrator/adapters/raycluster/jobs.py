"""Controllers that outlive the command that started them: Ray jobs on the cluster's head.

Ray's own job server keeps them; their output is in its dashboard.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.adapters.raycluster import access, service
from orchestrator.core.errors import ClusterError


def submit(home: Path, address: str, words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run the command `words` as a job with `environment` added; return the job's id.

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
        job: str = client.submit_job(
            entrypoint=shlex.join(words), runtime_env={"env_vars": dict(environment)}
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        message = f"the job server at {where!r} refuses the launch: {reason}"
        raise ClusterError(message) from error
    return job


def _managed(home: Path) -> str:
    found = service.find(home)
    if found is None:
        raise ClusterError(f"no cluster of {str(home)!r} is up to run a detached launch on")
    return found.dashboard


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
            ray.shutdown()
    if not known:
        raise ClusterError(f"the Ray cluster at {address!r} has no dashboard, hence no job server")
    return f"http://{known}"
