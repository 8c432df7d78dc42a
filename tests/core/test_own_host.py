"""Which addresses lead each host to itself."""

from __future__ import annotations

import socket

import pytest

from orchestrator.core.own_host import is_bare_name, is_loopback, leads_home

LOOPBACK = (
    "127.0.0.1",
    "127.0.1.1",
    "localhost",
    "LocalHost",
    "localhost.",
    "a.localhost",
    "[::1]",
)


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_is_this_machine_alone_by_whatever_form_of_address(host: str) -> None:
    assert is_loopback(host)
    for address in (host, f"{host}:6379", f"http://{host}", f"http://{host}:8265/api"):
        assert leads_home(address), address


@pytest.mark.parametrize("address", ["::1", "::ffff:127.0.0.1", "0.0.0.0:6379", "[::]:6379", "::"])
def test_what_is_unspecified_or_has_no_port_leads_home_too(address: str) -> None:
    assert leads_home(address)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]"])  # noqa: S104 - what a listener names
def test_who_listens_everywhere_is_not_on_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "10.0.0.9:6379",
        "h1:6379",
        "h127.0.0.1:6379",
        "10.127.0.0:1",
        "my-localhost:6379",
        "[10.0.0.9",
    ],
)
def test_other_addresses_lead_elsewhere_or_nowhere(address: str) -> None:
    assert not leads_home(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.1.1", "0.0.0.0"])  # noqa: S104 - as it is asked
def test_the_system_agrees_that_they_lead_home(host: str) -> None:
    with socket.create_server(("127.0.0.1" if host == "0.0.0.0" else host, 0)) as server:  # noqa: S104 - as above
        socket.create_connection((host, server.getsockname()[1]), timeout=5.0).close()


@pytest.mark.parametrize("address", ["head:6379", "head", "http://h0:8265", "HEAD.:1"])
def test_a_name_without_a_domain_is_bare(address: str) -> None:
    assert is_bare_name(address)


@pytest.mark.parametrize(
    "address", ["", "10.9.9.9:6379", "[fd00::9]:6379", "fd00::9", "head.a.example:1", "http://["]
)
def test_an_address_or_a_name_with_a_domain_is_not(address: str) -> None:
    assert not is_bare_name(address)
