"""What a maker's diagnostic says is believed; that it can't run is told."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from jobs.qualification import maker
from jobs.qualification.bench import FAILED, LIMITED, PASSED, SKIPPED, Bench
from jobs.qualification.maker import check_maker, diagnosed
from orchestrator import wiring
from orchestrator.core.spec.hardware import Accelerator
from tests.jobs.local_context import LocalContext


@pytest.fixture(scope="module")
def known() -> Accelerator:
    """The chip whose diagnostic is dcgmi."""
    return wiring.settings(["fleet=r2"]).fleet.pools["h800"].accelerator


def script(folder: Path, text: str) -> list[str]:
    made = folder / "dcgmi"
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(made.stat().st_mode | stat.S_IXUSR)
    return [str(made), "diag", "-r", "1", "-j"]


def result(status: str) -> str:
    """Return what DCGM prints of one test, in short."""
    test = {"name": "PCIe", "results": [{"gpu_id": "0", "status": "Pass"}, {"status": status}]}
    said = {"DCGM Diagnostic": {"test_categories": [{"category": "Hw", "tests": [test]}]}}
    return f"cat <<END\n{json.dumps(said, indent=2)}\nEND"


def test_the_diagnostic_of_a_chip_is_data(known: Accelerator) -> None:
    assert known.diagnostic == ("dcgmi", "diag", "-r", "1", "-j")


def test_a_chip_that_fails_is_told_with_what_was_said(tmp_path: Path, known: Accelerator) -> None:
    good = script(tmp_path, result("Pass"))
    assert diagnosed(good, known.diagnostic_failed) == (PASSED, "")
    bad = script(tmp_path, f"{result('Fail')}; exit 226")
    status, note = diagnosed(bad, known.diagnostic_failed)
    assert status == FAILED
    assert '"name": "PCIe"' in note


def test_one_that_can_not_run_says_nothing_of_the_chip(
    tmp_path: Path, known: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = script(tmp_path, "echo 'unable to establish a connection to localhost'; exit 1")
    assert diagnosed(away, known.diagnostic_failed) == (
        LIMITED,
        "ended with 1: unable to establish a connection to localhost",
    )
    assert diagnosed(["no-such-tool"], "x") == (SKIPPED, "'no-such-tool' is not installed")
    monkeypatch.setattr(maker, "SECONDS", 0.2)
    assert diagnosed(script(tmp_path, "exec sleep 60"), "x") == (
        LIMITED,
        "did not end within 0.2 s",
    )


def test_without_an_expression_the_status_tells(tmp_path: Path) -> None:
    assert diagnosed(script(tmp_path, "echo fine"), "") == (PASSED, "")
    assert diagnosed(script(tmp_path, "echo bad; exit 3"), "") == (FAILED, "ended with 3: bad")


def test_what_stands_in_for_a_chip_has_none(tmp_path: Path) -> None:
    bench = Bench(LocalContext(folder=tmp_path))
    check_maker(bench, ["dcgmi"], "x")
    check_maker(bench, [], "")
    assert [(one.status, one.note) for one in bench.findings] == [
        (SKIPPED, "the chip is emulated"),
        (SKIPPED, "none is known for this chip"),
    ]
