"""The environment of a controller that is handed over to the cluster, sealed for its job alone.

It holds credentials (of the database, the artifact store, MLflow), so it is in no runtime
environment, which dashboards and every user of the cluster see, and on no command line. It travels
as a file of the job's package, encrypted by what both ends have and nobody else: the cluster's
token, or `ORCHESTRATOR_SECRET`. The job reads it once, and removes its copy.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, MutableMapping

from orchestrator.core.errors import ClusterError

FILE = "environment.sealed"
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray's own, by which a job's driver knows what it is
_PURPOSE = b"the environment of a controller"


def seal(run: str, variables: Mapping[str, str], secret: bytes) -> bytes:
    """Return `variables` for the controller of `run`, to be opened by `secret` alone.

    Raises:
        ClusterError: There is no secret: whoever reads the package could open them.
    """
    from cryptography.fernet import Fernet

    content = json.dumps({"run": run, "variables": dict(variables)})
    return Fernet(_key(secret)).encrypt(content.encode())


def opened(run: str, sealed: bytes, secret: bytes) -> Mapping[str, str]:
    """Return the variables that were sealed for the controller of `run`.

    Raises:
        ClusterError: They were sealed by another secret, or for another run; or there is none.
    """
    from cryptography.fernet import Fernet, InvalidToken

    try:
        content = json.loads(Fernet(_key(secret)).decrypt(sealed))
    except InvalidToken as error:
        what = "what the controller needs was sealed with another secret than this node has"
        hint = "give both the same token of Ray, or the same ORCHESTRATOR_SECRET"
        raise ClusterError(f"{what}; {hint}") from error
    if content["run"] != run:
        raise ClusterError(f"what the controller of run {run!r} needs was sealed for another run")
    variables: dict[str, str] = content["variables"]
    return variables


def keep_from_workers(environment: MutableMapping[str, str]) -> None:
    """Have no worker get the job's package: Ray takes what a job is given for what they need."""
    job_config = environment.get(_JOB_CONFIG)
    if job_config:
        kept = {
            name: part for name, part in json.loads(job_config).items() if name != "runtime_env"
        }
        environment[_JOB_CONFIG] = json.dumps(kept)


def _key(secret: bytes) -> bytes:
    if not secret:
        what = "what a controller needs travels sealed, and this host has no secret for it"
        hint = "give both ends the same token of Ray, or the same ORCHESTRATOR_SECRET"
        raise ClusterError(f"{what}; {hint}")
    return base64.urlsafe_b64encode(hmac.new(secret, _PURPOSE, hashlib.sha256).digest())
