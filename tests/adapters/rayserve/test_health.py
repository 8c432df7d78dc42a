"""What Kubernetes has Serve hold, and what we have deployed there, leave each other alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from orchestrator.adapters.rayserve import health, operations, state
from orchestrator.supervisor.record import wait

pytestmark = pytest.mark.ray
SECONDS = 90.0
LISTED = {
    "name": "health",
    "route_prefix": "/health",
    "import_path": f"{health.__name__}:application",
}


@pytest.fixture(autouse=True)
def _serve(ray_address: str) -> Iterator[None]:
    assert ray_address
    serve.start(http_options={"host": state.HERE, "port": 0})
    yield
    state.stop()


def run(*listed: dict[str, str]) -> None:
    """Have Serve hold these applications, as KubeRay asks the dashboard to."""
    config = ServeDeploySchema.model_validate({"applications": list(listed)})
    _get_global_client().deploy_apps(config)  # type: ignore[union-attr]


def states() -> dict[str, str]:
    return {name: app.state for name, app in (state.applications() or {}).items()}


def test_an_endpoint_stays_when_the_list_of_a_ray_service_changes() -> None:
    operations.deploy("echo-r1", health.application, state.HERE)
    run(LISTED)
    both = {"echo-r1": "RUNNING", "health": "RUNNING"}
    assert wait(lambda: states() == both, SECONDS, tick=0.2), states()
    assert not operations.stop(), "Serve stays while something is on it"
    operations.remove("echo-r1")
    assert wait(lambda: states() == {"health": "RUNNING"}, SECONDS, tick=0.2), states()
    operations.deploy("echo-r2", health.application, state.HERE)
    run()
    assert wait(lambda: states() == {"echo-r2": "RUNNING"}, SECONDS, tick=0.2), states()
