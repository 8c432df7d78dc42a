"""How long pools that raise are asked again is the run's to say."""

from __future__ import annotations

import pytest

from orchestrator.core.settings import AttemptSettings
from orchestrator.messages import AttemptRequest
from tests.simulation.test_rings import Bench


@pytest.mark.parametrize("seconds", [5.0, 300.0])
def test_the_run_says_how_long_an_attempt_may_be_asked_in_vain(seconds: float) -> None:
    bench = Bench()
    bench.waits = AttemptSettings(unanswered=seconds)
    poll, since = bench.cluster.poll, bench.clock.now()

    def lost(key: str) -> object:
        if key.startswith("run/s/1"):
            raise RuntimeError("no such actor")
        return poll(key)

    bench.cluster.poll = lost  # type: ignore[method-assign, assignment]
    first = bench.drive().stages["s"].attempts[0]
    assert first.failure is not None
    assert first.ended is not None
    assert seconds < first.ended - since < seconds + 1.0


@pytest.mark.parametrize("seconds", [5.0, 300.0])
def test_the_run_says_how_long_an_attempt_is_asked_for(seconds: float) -> None:
    bench = Bench()
    bench.waits = AttemptSettings(retry=seconds)
    since, begin = bench.clock.now(), bench.cluster.start

    def away(request: AttemptRequest) -> None:
        if request.attempt == 1 and request.stage == "s":
            raise RuntimeError("no such cluster")
        begin(request)

    bench.cluster.start = away  # type: ignore[method-assign]
    first = bench.drive().stages["s"].attempts[0]
    assert first.failure is not None
    assert first.failure.evidence == "can't be asked for: RuntimeError: no such cluster"
    assert first.ended is not None
    assert seconds <= first.ended - since < seconds + 6.0
