"""What a run's description says of a failure."""

from __future__ import annotations

from orchestrator.adapters.mlflow_tracker.words import _why
from orchestrator.core.failures.kinds import FailureKind
from tests.build import failure


def test_a_long_line_of_evidence_ends_at_a_word_and_says_that_it_goes_on() -> None:
    said = _why(failure(FailureKind.INTERCONNECT, f"EI0002: {'waits for rank ' * 20}."))
    assert said.startswith("interconnect, EI0002: waits for rank")
    assert said.endswith(("waits ...", "for ...", "rank ..."))
    short = _why(failure(FailureKind.INTERCONNECT, "EI0002: times out.\nand so on"))
    assert short == "interconnect, EI0002: times out"
