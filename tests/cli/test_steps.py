"""Steps are done one after the other, or printed; after a bad end nothing follows."""

from __future__ import annotations

import pytest

from orchestrator.cli.exits import Exit
from orchestrator.cli.steps import Step, carry_out


def step(log: list[str], what: str, ends: Exit | None = None, *, announced: bool = False) -> Step:
    def do() -> Exit | None:
        log.append(what)
        return ends

    return Step(what, do, announced)


def test_steps_are_done_in_their_order_and_those_announced_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log: list[str] = []
    steps = [step(log, "one"), step(log, "two\nor [three]", Exit.SUCCEEDED, announced=True)]
    assert carry_out(steps, dry=False) is Exit.SUCCEEDED
    assert log == ["one", "two\nor [three]"]
    assert capsys.readouterr().out == "  two\n  or [three]\n"


def test_after_a_bad_end_nothing_follows() -> None:
    log: list[str] = []
    steps = [step(log, "one", Exit.FAILED), step(log, "two")]
    assert carry_out(steps, dry=False) is Exit.FAILED
    assert log == ["one"]


def test_a_dry_run_prints_all_and_does_none(capsys: pytest.CaptureFixture[str]) -> None:
    log: list[str] = []
    assert carry_out([step(log, "one"), step(log, "two")], dry=True) is Exit.SUCCEEDED
    assert (log, capsys.readouterr().out) == ([], "  one\n  two\n")
