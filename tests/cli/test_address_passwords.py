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


ADDRESSES = (
    "postgresql://ann@127.0.0.1:1/n?password=hunter2",
    "postgresql://ann@127.0.0.1:1/n?sslmode=disable&sslpassword=hunter2",
    "postgresql://ann@127.0.0.1:1,127.0.0.1:2/n?passfile=/hunter2",
    "postgresql://ann:h@hunter2@127.0.0.1:1/n",
    "postgresql://ann:h@hunter2@127.0.0.1:1,127.0.0.1:2/n",
    "postgresql://ann/x:hunter2@127.0.0.1/n",
    "postgresql://ann:hunter2",
    "postgresql://ann:hunter2,127.0.0.1/n",
    "postgresql://ann:h/hunter2@127.0.0.1:1/n",
    "host=127.0.0.1 port=1 password=hunter2",
    "ann:hunter2@127.0.0.1/n",
    "mysql://ann:hunter2@127.0.0.1/n",
)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("doctor",),
        ("db", "copy", "{}", "x.db"),
        ("db", "copy", "{}", "x.db", "--dry-run"),
        ("db", "copy", "old.db", "{}"),
        ("db", "copy", "old.db", "{}", "--dry-run"),
    ],
    ids=" ".join,
)
def test_no_command_shows_the_password_of_the_database(
    within, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words, address
) -> None:
    (tmp_path / "old.db").touch()
    if "{}" not in words:
        monkeypatch.setenv("ORCHESTRATOR_DATABASE", address)
    done = within(*(word.replace("{}", address) for word in words))
    said = done.stdout + done.stderr
    assert "hunter2" not in said
    assert "***" in said or "postgresql://ann@127.0.0.1" in said or "/n?host=127.0.0.1" in said


@pytest.mark.parametrize("address", ["ann:h@hunter2@h/n", "host=h password=pw"])
def test_an_address_that_can_not_be_read_is_refused_before_anything_is_copied(
    within, tmp_path: Path, address: str
) -> None:
    for last in ((), ("--dry-run",)):
        done = within("db", "copy", "x.db", address, *last)
        assert done.returncode == 1
        assert "write it as sqlite:////path/to.db or postgresql://user@host/name" in done.stderr
    assert not [file for file in tmp_path.iterdir() if "=" in file.name or "@" in file.name]


def test_an_origin_with_a_password_is_none(within) -> None:
    done = within("plan", *NOOP, f"gateway.cors.origins=['{FAR}']")
    assert done.returncode == 2
    assert "gateway.cors.origins.0: 'http://far.example:8265' is no origin" in done.stderr
    assert PASSWORD not in done.stderr
