"""A config that is stored with a run of an earlier version is read under the names of today."""

from __future__ import annotations

from orchestrator.adapters import hydra_config
from orchestrator.adapters.hydra_config import moved


def test_a_stored_port_of_the_gateway_is_found_at_its_new_place() -> None:
    resolved = dict(hydra_config.compose(["pipeline=noop"]).resolved)
    cluster = resolved["cluster"]
    assert isinstance(cluster, dict)
    del resolved["gateway"]
    earlier = {**resolved, "cluster": {**cluster, "serve_port": 8123}}
    assert hydra_config.parse(earlier).gateway.port == 8123


def test_what_has_its_name_of_today_stays_as_it_is() -> None:
    config = {"cluster": {"kind": "ray"}, "gateway": {"port": 1}}
    assert moved.forward(config) == config
