"""Whether an address is of the own host alone: on another host it leads to that one instead."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

_LOCAL = "localhost"


def is_loopback(host: str) -> bool:
    """Whether what listens at `host`, or comes from there, is on this machine alone."""
    address = _number(host)
    if address is None:
        name = host.lower().rstrip(".")
        return name == _LOCAL or name.endswith(f".{_LOCAL}")
    return address.is_loopback


def leads_home(address: str) -> bool:
    """Whether HOST, HOST:PORT or a URL leads each host to itself: loopback or unspecified."""
    host = host_of(address)
    number = _number(host)
    return is_loopback(host) or (number is not None and number.is_unspecified)


def is_bare_name(address: str) -> bool:
    """Whether HOST, HOST:PORT or a URL has a name without a domain: each site has a `head`."""
    host = host_of(address).rstrip(".")
    return bool(host) and _number(host) is None and "." not in host


def host_of(address: str) -> str:
    """Return the host of HOST, HOST:PORT or a URL; empty where there is none."""
    if _number(address) is not None:
        return address
    try:
        return urlsplit(address if "://" in address else f"//{address}").hostname or ""
    except ValueError:  # brackets without an address
        return ""


def _number(host: str) -> IPv4Address | IPv6Address | None:
    try:
        number = ip_address(host.strip("[]"))
    except ValueError:
        return None
    return getattr(number, "ipv4_mapped", None) or number
