"""What a config says of waits reaches those who wait, where no value of theirs has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import supervisor, wiring
from orchestrator.adapters import gateway_service, mlflow_server
from orchestrator.adapters.raycluster import managed_ray
from orchestrator.core.runs.fold import begin
from orchestrator.core.settings import (
    ClusterSettings,
    GatewaySettings,
    ReconcilerSettings,
    TrackingSettings,
)
from orchestrator.core.spec.hardware import Role
from orchestrator.service.driving import driving
from orchestrator.service.driving.request import DriveRequest
from orchestrator.service.qualifying import in_short
from orchestrator.supervisor import Tenancy
from tests.build import header, plan, stage
from tests.fakes import FakeTracker
from tests.ports import free_port
from tests.simulation.test_rings import Bench


class StartedError(Exception):
    """A service was to be started; nothing is in tests of how."""


def test_managed_services_may_take_as_long_to_start_as_the_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[tuple[str, object]] = []

    def start(_home: Path, name: str, *_: object, timeout: float, **_others: object) -> object:
        waited.append((name, timeout))
        raise StartedError

    monkeypatch.setattr(supervisor, "start", start)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    settings = replace(
        wiring.settings(["pipeline=noop"]),
        tracking=TrackingSettings(start=7.0),
        cluster=ClusterSettings(start=8.0),
        gateway=GatewaySettings(port=free_port(), start=9.0),
    )
    (tmp_path / "services").mkdir()
    tenancy = Tenancy(tmp_path)
    with pytest.raises(StartedError):
        wiring.start_tracking(settings, tmp_path, tenancy)
    with pytest.raises(StartedError):
        wiring.start_cluster(settings, tmp_path, {}, tenancy)
    with pytest.raises(StartedError):
        wiring.start_gateway(settings, tmp_path, "127.0.0.1:1", tenancy)
    names = (mlflow_server.SERVICE, managed_ray.SERVICE, gateway_service.SERVICE)
    assert waited == [*zip(names, (7.0, 8.0, 9.0), strict=True)]


def test_the_reconciler_is_started_with_the_settings_of_the_gateway() -> None:
    settings = GatewaySettings(reconciler=ReconcilerSettings(loss=5.0))
    info = {"url": "http://g", "cluster": "c:1"}
    process = gateway_service._processes(settings, info, {})[-1]
    assert process.argv[-3:-1] == ("_reconcile", "c:1")
    assert wiring.gateway_settings(process.argv[-1]) == settings
    assert wiring.gateway_settings("{}").reconciler == ReconcilerSettings()


def test_the_last_of_a_run_is_written_for_as_long_as_the_config_says(tmp_path: Path) -> None:
    waited: list[float] = []

    class Slow(FakeTracker):
        def close(self, timeout: float) -> bool:
            waited.append(timeout)
            return False

    first = header(plan(stage("t")))
    settings = replace(wiring.settings(["pipeline=noop"]), tracking=TrackingSettings(finish=7.0))
    request = DriveRequest(settings=settings, header=first, home=tmp_path)
    deps = replace(Bench().ports, tracker=Slow())
    driving._part(begin(first), deps, request)
    assert waited == [7.0]


def test_who_waits_for_a_verdict_waits_for_the_pool_as_long_as_the_config_says() -> None:
    settings = wiring.settings(["pipeline=noop", "qualification.patience=7"])
    pool = settings.fleet.pools["ascend"]
    assert in_short(settings, pool, Role.TRAIN).depth.patience == 7.0
