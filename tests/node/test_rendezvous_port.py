"""The port at which a gang meets is open from the moment its address is told."""

from __future__ import annotations

import socket

import pytest

from orchestrator.node import rendezvous_port


def test_a_port_is_open_until_it_is_closed_and_who_comes_early_waits_in_line() -> None:
    address = rendezvous_port.keep_open("127.0.0.1")
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5.0):
        pass
    rendezvous_port.close(address)
    rendezvous_port.close(address)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5.0)


def test_who_takes_the_port_has_it_alone() -> None:
    address = rendezvous_port.keep_open("127.0.0.1")
    taken = rendezvous_port.take(address)
    assert taken is not None
    assert rendezvous_port.take(address) is None
    rendezvous_port.close(address)
    assert taken.fileno() >= 0, "it is not closed under whoever took it"
    taken.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_an_address_of_the_sixth_version_has_brackets() -> None:
    try:
        address = rendezvous_port.keep_open("::1")
    except OSError:
        pytest.skip("no IPv6 on loopback")
    assert address.startswith("[::1]:")
    rendezvous_port.close(address)


def test_the_interface_is_that_by_which_a_host_is_reached() -> None:
    assert rendezvous_port.interface_to("127.0.0.1").startswith("lo")
    assert rendezvous_port.interface_to("no.such.host.invalid") == ""
