"""Controllers that outlive the command that started them: Ray jobs on the cluster's head.

Ray's own job server keeps them, and is asked over HTTP: whoever submits need be no node of the
cluster. Their output is in its dashboard.
"""

from __future__ import annotations

import http.client
import logging
import shlex
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.adapters.raycluster import access
from orchestrator.adapters.rayqueries import gcs
from orchestrator.core.errors import ClusterError
from orchestrator.core.own_host import is_loopback

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_LAST_LINES = 5
_SECONDS = 5.0
_UNAUTHORIZED, _FORBIDDEN = 401, 403


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
            words = log or self._client.get_job_info(self.name).message or ""
        except (ConnectionError, RuntimeError, ValueError):
            return ""
        lines = [line.strip() for line in words.splitlines() if line.strip()]
        return " | ".join(lines[-_LAST_LINES:])

    def stop(self) -> None:
        """End it, if it runs."""
        with suppress(ConnectionError, RuntimeError, ValueError):
            self._client.stop_job(self.name)


def submit(server: str, words: Sequence[str], files: Mapping[str, bytes]) -> Job:
    """Run the command `words` as a job of `server`, in a folder that holds `files`; return it.

    Raises:
        ClusterError: No job server answers, or it refuses the job.
    """
    from ray.job_submission import JobSubmissionClient

    check(server)
    with tempfile.TemporaryDirectory() as folder:  # its owner's alone
        for path, content in files.items():
            (Path(folder) / path).write_bytes(content)
        try:
            client = JobSubmissionClient(server)
            logging.getLogger("ray").setLevel(logging.ERROR)  # which it has set otherwise
            name: str = client.submit_job(
                entrypoint=shlex.join(words), runtime_env={"working_dir": folder}
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1]
            message = f"the job server at {server!r} refuses the launch: {reason}"
            raise ClusterError(message) from error
    return Job(client, name)


def server_of(address: str) -> str:
    """Return the URL of the job server of the cluster at `address`, which may be that itself.

    Raises:
        ClusterError: The cluster can't be asked, has none, or has one for its head alone.
    """
    if "://" in address:
        return address.rstrip("/")
    access.check(address)
    facts = gcs.ask(address)
    if facts is None:
        raise ClusterError(f"the head of the Ray cluster at {address!r} is too busy; try again")
    if not facts.dashboard:
        raise ClusterError(f"the Ray cluster at {address!r} has no dashboard, hence no job server")
    host = facts.dashboard.rpartition(":")[0]
    if is_loopback(host) and not gcs.is_here(access.split(address)[0]):
        what = f"the job server of the Ray cluster at {address!r} answers its own host alone"
        raise ClusterError(f"{what}; start the head with --dashboard-host=0.0.0.0")
    return f"http://{facts.dashboard}"


def check(server: str) -> None:
    """Check that a job server answers at the URL `server`, and lets this process in.

    Raises:
        ClusterError: None does, or it wants another token.
    """
    shown = gcs.token()
    headers = {"authorization": shown} if shown else {}
    request = urllib.request.Request(f"{server}/api/version", headers=headers)  # noqa: S310 - http(s) alone
    try:
        urllib.request.urlopen(request, timeout=_SECONDS).close()  # noqa: S310 - as above
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in {_UNAUTHORIZED, _FORBIDDEN}:
            raise ClusterError(gcs.refusal(server, has_token=bool(shown))) from error
        what = f"what listens at {server!r} is no job server of Ray (it answers {error.code})"
        raise ClusterError(f"{what}; its dashboard's port is 8265") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "reason", error)
        raise ClusterError(f"no job server answers at {server!r}: {why}") from error
