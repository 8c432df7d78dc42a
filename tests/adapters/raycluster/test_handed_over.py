"""What a controller is handed is for it alone, and reaches no worker."""

from __future__ import annotations

import json

import pytest

from orchestrator.adapters.raycluster import handed_over
from orchestrator.core.errors import ClusterError

VARIABLES = {"AWS_SECRET_ACCESS_KEY": "s3cr3t ✓", "ORCHESTRATOR_DATABASE": "postgresql://u:p@h/n"}


def test_who_has_the_secret_reads_what_was_sealed() -> None:
    sealed = handed_over.seal("run-1", VARIABLES, b"token")
    assert b"s3cr3t" not in sealed
    assert handed_over.opened("run-1", sealed, b"token") == VARIABLES


@pytest.mark.parametrize(
    ("run", "secret", "said"),
    [
        ("run-1", b"another", "sealed with another secret than this node has; give both"),
        ("run-2", b"token", "the controller of run 'run-2' needs was sealed for another run"),
    ],
)
def test_nobody_else_does(run: str, secret: bytes, said: str) -> None:
    sealed = handed_over.seal("run-1", VARIABLES, b"token")
    with pytest.raises(ClusterError, match=said):
        handed_over.opened(run, sealed, secret)


def test_the_package_of_a_job_is_kept_from_its_workers() -> None:
    name = "RAY_JOB_CONFIG_JSON_ENV_VAR"
    said = {"runtime_env": {"working_dir": "gcs://package.zip"}, "metadata": {"job": "1"}}
    environment = {name: json.dumps(said)}
    handed_over.keep_from_workers(environment)
    assert json.loads(environment[name]) == {"metadata": {"job": "1"}}
    nothing: dict[str, str] = {}
    handed_over.keep_from_workers(nothing)
    assert nothing == {}
