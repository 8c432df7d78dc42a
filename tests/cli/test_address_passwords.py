"""Every setting that takes an address refuses one with a password, and does not show it."""

from __future__ import annotations

from pathlib import Path

import pytest

PASSWORD = "hunter2"  # noqa: S105 - it must not be shown
FAR = f"http://ann:{PASSWORD}@far.example:8265"
NOOP = ("pipeline=noop", "tracking=none")
GATE = f"+pipeline.stages.noop.gate={{kind: url, target: '{FAR}'}}"


@pytest.mark.parametrize(
    ("words", "variables", "path"),
    [
        (("plan", *NOOP, f"cluster.address={FAR}"), {}, "cluster.address"),
        (("plan", *NOOP, f"cluster.address='ann:{PASSWORD}@far:6379'"), {}, "cluster.address"),
        (("plan", *NOOP), {"RAY_ADDRESS": FAR}, "RAY_ADDRESS"),
        (("up", *NOOP, f"cluster.address={FAR}"), {}, "cluster.address"),
        (("doctor",), {"RAY_ADDRESS": FAR}, "cluster.address"),
        (("plan", "pipeline=noop", f"tracking.uri={FAR}"), {}, "tracking.uri"),
        (("plan", "pipeline=noop"), {"MLFLOW_TRACKING_URI": FAR}, "MLFLOW_TRACKING_URI"),
        (("plan", *NOOP, f"storage.uri='s3://KEY:{PASSWORD}@bucket'"), {}, "storage.uri"),
        (("plan", *NOOP, f"gateway.url={FAR}"), {}, "gateway.url"),
        (("up", *NOOP, f"gateway.url={FAR}"), {}, "gateway.url"),
        (("plan", *NOOP, GATE), {}, "pipeline.stages.noop.gate.target"),
        (("deploy", "chat", "--address", FAR), {}, "--address"),
        (("deploy", "chat", "--address", f"http://ann:{PASSWORD}/@far/v1"), {}, "--address"),
    ],
)
def test_a_password_in_an_address_is_refused_and_not_shown(
    within, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words, variables, path
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = within(*words)
    assert done.returncode
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if path in line]
    assert "holds a password, which would be shown" in line
    assert PASSWORD not in done.stdout + done.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not any(PASSWORD.encode() in file.read_bytes() for file in files)


def test_an_origin_with_a_password_is_none(within) -> None:
    done = within("plan", *NOOP, f"gateway.cors.origins=['{FAR}']")
    assert done.returncode == 2
    assert "gateway.cors.origins.0: 'http://far.example:8265' is no origin" in done.stderr
    assert PASSWORD not in done.stderr
