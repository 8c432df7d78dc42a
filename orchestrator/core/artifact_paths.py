"""Where in the artifact store things of a stage stand that are no results."""

from __future__ import annotations

CHECKPOINTS = "checkpoints"
CODE = "code"
DAMAGED = "damaged"
USERS_OF_CODE = "code-users"
PACKAGES = "packages"  # the folder of shipped packages that are in no folder of `jobs.code`


def checkpoints(run: str, stage: str) -> str:
    """Return the folder of the checkpoints of a stage."""
    return f"{CHECKPOINTS}/{run}/{stage}"


def continued(run: str, stage: str, attempt: int) -> str:
    """Return the name of the mark that says which checkpoint of an earlier run an attempt took."""
    return f"{checkpoints(run, stage)}/continued-{attempt}"


def leaving(run: str, stage: str, attempt: int) -> str:
    """Return the name of the mark that asks an attempt to leave its pool."""
    return f"{checkpoints(run, stage)}/leave-{attempt}"


def damaged(artifact: str) -> str:
    """Return the name of the mark that says how an artifact was found to be damaged."""
    return f"{DAMAGED}/{artifact}"


def logs(run: str) -> str:
    """Return the folder of the logs of a run."""
    return f"logs/{run}"


def log_page(run: str, stage: str, attempt: int, last: int) -> str:
    """Return the name of the mark that has chunks of an attempt's log, up to that of id `last`."""
    return f"{logs(run)}/{stage}/{attempt}/{last}.jsonl"


def code(key: str) -> str:
    """Return the name of the archive of the code whose files have `key`."""
    return f"{CODE}/{key}"


def users_of_code(key: str) -> str:
    """Return the folder of the marks that say which runs were given the code of `key`."""
    return f"{USERS_OF_CODE}/{key}"


def user_of_code(key: str, run: str) -> str:
    """Return the name of the mark that says that `run` was given the code of `key`."""
    return f"{users_of_code(key)}/{run}"


def key_of_code(uri: str) -> str:
    """Return the key of the archive at `uri`."""
    return uri.rpartition("/")[2]
