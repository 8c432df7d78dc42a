"""The compose file as podman-compose reads it: an engine is asked for its version alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docker.test_compose import FILE, SERVICES

SECRETS = ("RAY_AUTH_TOKEN", "ORCHESTRATOR_SECRET", "DATABASE_PASSWORD", "STORE_SECRET")
VALUES = {name: f"the-{name.lower()}" for name in SECRETS}
_VARIABLE = re.compile(r"\$\{(\w+):\?[^}]*\}")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """The folder of a `podman` that knows its version alone."""
    program = tmp_path / "podman"
    program.write_text("#!/bin/sh\necho podman version 5.0.0\n")
    program.chmod(0o755)
    return tmp_path


def read(engine: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Have podman-compose print the file as it takes it, with all that is merged and filled in."""
    words = ("-m", "podman_compose", "-f", str(FILE), "config")
    env = {"PATH": f"{engine}:/usr/bin:/bin", "HOME": str(engine), **variables}
    return subprocess.run(
        [sys.executable, *words],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def filled_in(value: Any) -> Any:
    """Return a part of the file with the secrets in it, as a program in the container gets it."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: VALUES[match[1]], value).replace("$$", "$")
    if isinstance(value, list):
        return [filled_in(part) for part in value]
    return value


def test_every_service_has_the_variables_and_the_command_that_the_file_says(engine: Path) -> None:
    done = read(engine, **VALUES)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert services.keys() == SERVICES.keys()
    for name, service in SERVICES.items():
        expected = {key: filled_in(value) for key, value in service["environment"].items()}
        assert services[name]["environment"] == expected
        for part in ("entrypoint", "command"):
            assert services[name].get(part) == filled_in(service.get(part))


def test_a_service_waits_for_others_until_they_are_healthy(engine: Path) -> None:
    services = yaml.safe_load(read(engine, **VALUES).stdout)["services"]
    for name, service in SERVICES.items():
        waited_for = services[name].get("depends_on", {})
        assert waited_for == service.get("depends_on", {})
        assert all(services[other]["healthcheck"]["test"] for other in waited_for)


@pytest.mark.parametrize("secret", SECRETS)
def test_without_a_secret_nothing_starts_and_it_is_named(engine: Path, secret: str) -> None:
    others = {name: value for name, value in VALUES.items() if name != secret}
    done = read(engine, **others)
    assert done.returncode != 0
    assert f"{secret} is missing a value: set it to a secret of your own" in done.stderr
