"""Where the gateway of a home is started, and what is refused before."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.adapters import gateway_service
from orchestrator.core.errors import ServingError
from orchestrator.core.settings import GatewaySettings, MetricsSettings, TlsSettings
from orchestrator.serving.http.request_limits import GatewayLimits
from tests.ports import free_port


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"host": "10.1.2.3", "port": 81}, "http://10.1.2.3:81"),
        ({"host": "::1"}, "http://[::1]:8000"),
        ({"tls": TlsSettings(certificate="c", key="k")}, "https://127.0.0.1:8000"),
        ({"url": "https://models.example.com/"}, "https://models.example.com"),
    ],
)
def test_clients_are_told_the_public_address_or_where_it_listens(
    fields: Mapping[str, object], url: str
) -> None:
    assert gateway_service.url_of(GatewaySettings(**fields), "10.0.0.1:6379") == url  # type: ignore[arg-type]


@pytest.mark.parametrize("cluster", ["127.0.0.1:6379", "127.0.1.1:6379", "localhost:6379", ""])
def test_one_that_listens_everywhere_is_told_by_an_address_of_this_host(cluster: str) -> None:
    everywhere = GatewaySettings(host="0.0.0.0")  # noqa: S104 - what is tested
    url = gateway_service.url_of(everywhere, cluster)
    assert url == gateway_service.url_of(everywhere, "192.0.2.9:6379"), "the way out"
    assert "0.0.0.0" not in url  # noqa: S104 - as above
    host = url.removeprefix("http://").removesuffix(":8000")
    with socket.create_server((host, 0)):
        pass


def test_one_whose_own_name_leads_to_loopback_is_told_by_the_way_out_or_as_its_node_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everywhere = GatewaySettings(host="0.0.0.0")  # noqa: S104 - as above
    by_name = f"{socket.gethostname()}:6379"
    out = gateway_service.url_of(everywhere, "192.0.2.9:6379")
    if gateway_service._own_address(socket.gethostname()) == "127.0.0.1":
        assert gateway_service.url_of(everywhere, by_name) == out
    monkeypatch.setattr(gateway_service, "_FAR", "127.0.0.1")  # no way out
    assert (
        gateway_service.url_of(everywhere, "localhost:6379", lambda: "10.9.8.7")
        == "http://10.9.8.7:8000"
    )
    assert gateway_service.url_of(everywhere, "localhost:6379") == "http://127.0.0.1:8000"


def test_settings_travel_to_the_server_as_text() -> None:
    settings = GatewaySettings(limits={"depth": 3.0, "queue_seconds": 1.5})
    assert gateway_service.loaded(gateway_service.dumped(settings)) == settings
    assert gateway_service.limits_of(settings) == GatewayLimits(depth=3, queue_seconds=1.5)


def test_what_this_host_lacks_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = {
            "set gateway.port to a free port": GatewaySettings(port=port),
            "set gateway.metrics.port to a free port": GatewaySettings(
                port=free_port(), metrics=MetricsSettings(port=port)
            ),
            "'192.0.2.7' is no address of this machine; mend gateway.host": GatewaySettings(
                host="192.0.2.7"
            ),
            "gateway.tls.key: 'k.pem' is no file on this host": GatewaySettings(
                port=free_port(), tls=TlsSettings(certificate=__file__, key="k.pem")
            ),
            "gateway.metrics.port: 3 processes need the ports up to 65536": GatewaySettings(
                port=free_port(), processes=3, metrics=MetricsSettings(port=65_534)
            ),
            f"port {port} of 127.0.0.1 is in use; set gateway.metrics.port": GatewaySettings(
                port=free_port(), processes=2, metrics=MetricsSettings(port=port - 1)
            ),
        }
        for said, settings in cases.items():
            with pytest.raises(ServingError, match=said):
                gateway_service.check(tmp_path, settings)
