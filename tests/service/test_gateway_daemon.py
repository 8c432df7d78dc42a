"""What a gateway calls itself and reads the time by, where hosts differ only in what they are."""

from __future__ import annotations

import socket
from importlib import import_module
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.adapters.clock import SystemClock
from orchestrator.core.endpoints.api_keys import ApiKey
from orchestrator.core.endpoints.metering import Usage
from orchestrator.service import keys
from orchestrator.service.daemons import gateway
from orchestrator.serving.gateway.ledger import StoreLedger
from tests.fakes import FakeClock
from tests.serving.http_server import Board

MINUTE = 60.0
OVERLAP = 30.0


class Skewed(SystemClock):
    """A clock that is set wrong."""

    def __init__(self, ahead: float) -> None:
        self._ahead = ahead

    def now(self) -> float:
        return super().now() + self._ahead


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
    monkeypatch.delenv("ORCHESTRATOR_DATABASE", raising=False)


@pytest.fixture(params=[MINUTE, -MINUTE], ids=["ahead", "behind"])
def _wrong(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "clock", lambda: Skewed(request.param))


def test_hosts_of_one_name_see_what_the_other_has_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node")
    here = gateway.name_of(8000, 0)
    (tmp_path / "boot").write_text("another")
    monkeypatch.setattr(import_module("orchestrator.wiring.user"), "_BOOT", tmp_path / "boot")
    other = gateway.name_of(8000, 0)
    store, clock = wiring.database(wiring.home()), FakeClock(1_796_040_000.0)
    ledger = StoreLedger(store, Board(), clock, here)
    used = Usage(day="2026-11-30", key="ann", endpoint="e", revision="r", pool="p", requests=7)
    store.add_usage(other, [used], [])
    ledger.write()
    assert ledger.elsewhere("ann") == (7, 0)


@pytest.mark.usefixtures("_wrong")
def test_a_key_is_rotated_by_the_clock_that_gateways_judge_by() -> None:
    store = wiring.database(wiring.home())
    keys.add(ApiKey(name="ann", digest="")).make()
    keys.rotate(keys.find("ann"), OVERLAP).make()
    key = keys.find("ann")
    assert key.previous_until == pytest.approx(store.now() + OVERLAP, abs=5.0)
    clock = gateway.shared_clock()
    assert not key.ended(key.previous, clock.now())
    assert key.ended(key.previous, clock.now() + OVERLAP)


@pytest.mark.usefixtures("_wrong")
def test_verdicts_and_keys_that_are_listed_go_by_that_clock_too() -> None:
    store = wiring.database(wiring.home())
    assert keys.now() == pytest.approx(store.now(), abs=5.0)
    assert wiring.time_of_verdicts() == pytest.approx(store.now(), abs=5.0)
