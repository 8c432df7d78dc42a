"""A network with 40 ms of round trip that loses 1 % of what is sent: a pipeline gets through.

`pytest -s` prints how long it took.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.core.runs.states import RunState
from tests.hosts.clients import new_key
from tests.hosts.echo_pipeline import OPEN
from tests.hosts.site import OURS, site

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(1800)]
MILLISECONDS, PERCENT = 40.0, 1.0
SECONDS = 1500.0


def test_a_model_is_trained_gated_and_served_over_it_and_knows_the_answer(logs: Path) -> None:
    with site(logs) as lab:
        first, second, _, _ = lab.network.hosts
        with lab.network.slow(MILLISECONDS, PERCENT):
            begun = time.monotonic()
            lab.do(first, "launch", "pipeline=r2", *OURS, OPEN, seconds=SECONDS)
            took = time.monotonic() - begun
            key = new_key(lab, first)
            answer = lab.do(second, "ask", "What is 17 + 25?", ORCHESTRATOR_API_KEY=key)
        print(f"r2 took {took:.0f} s over {MILLISECONDS:g} ms and {PERCENT:g} % of loss")
        assert "42" in answer
        run = lab.run()
        assert run.state is RunState.SUCCEEDED
        pools_of = {name: stage.attempts[-1].pool for name, stage in run.stages.items()}
        assert (pools_of["pretrain"], pools_of["parity"]) == ("hopper", "atlas")
        assert [len(stage.attempts) for stage in run.stages.values()] == [1] * len(run.stages)
