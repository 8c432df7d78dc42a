"""The image that `make image` builds, as the root file system of hosts: by its own settings."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.hosts.namespaces import Root

VARIABLE = "ORCHESTRATOR_IMAGE"
_OURS = "orchestrator-hosts-"  # and the number of the process
PYTHON = "/opt/orchestrator/bin/python"
# As compose and the manifests run it: without capabilities, nor a way to them.
CLOSED = ("--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")


def image_lacking() -> str:
    """Return why there is no image to run; empty where there is one."""
    return "" if _name() else f"{VARIABLE} names no image that buildah has built"


@contextmanager
def image() -> Iterator[Root]:
    """Have the image mounted, as who starts it as a container would find it."""
    _remove_leftovers()
    container = _buildah("from", "--pull-never", "--name", f"{_OURS}{os.getpid()}", _name())
    try:
        known = json.loads(_buildah("inspect", container))["OCIv1"]["config"]
        user, group = known["User"].split(":")
        variables = dict(pair.split("=", 1) for pair in known["Env"])
        yield Root(
            folder=_buildah("mount", container),
            python=PYTHON,
            orchestrator=tuple(known["Entrypoint"]),
            env={**variables, "HOME": known["WorkingDir"]},
            user=(f"--reuid={user}", f"--regid={group}", *CLOSED),
            owner=int(user),
        )
    finally:
        _buildah("rm", container)


def _remove_leftovers() -> None:
    """Remove what tests that were killed have left."""
    for name in _buildah("containers", "--format", "{{.ContainerName}}").split():
        if name.startswith(_OURS) and not psutil.pid_exists(int(name.removeprefix(_OURS))):
            _buildah("rm", name)


def _name() -> str:
    return os.environ.get(VARIABLE, "")  # noqa: TID251 - a test's own


def _buildah(*words: str) -> str:
    argv = ("buildah", *words)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
