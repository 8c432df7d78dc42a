"""A password in an address is seen, also where nobody escaped it, and is never shown."""

from __future__ import annotations

import pytest

from orchestrator.core.address_passwords import holds_password, without_account


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://ann:pw@host/path", "https://host/path"),
        ("ann:pw@host:6379", "host:6379"),
        ("//ann:pw@host", "//host"),
        ("s3://KEY:pw@bucket/x", "s3://bucket/x"),
        ("http://ann:p#w@host", "http://host"),
        ("http://ann:p/w@host", "http://host"),
        ("http://ann:p@w@host", "http://host"),
        ("http://ann:pw@[::1", "http://[::1"),
        ("http://:pw@host", "http://host"),
        ("http://host/x?token=pw", "http://host/x"),
        ("http://ann@host/x?a=1&api_key=pw", "http://host/x"),
        ("postgresql://ann@host/n?sslpassword=pw", "postgresql://host/n"),
    ],
)
def test_a_password_is_seen_and_hidden(address: str, shown: str) -> None:
    assert holds_password(address)
    assert without_account(address) == shown


@pytest.mark.parametrize(
    "address",
    [
        "https://host:8443/a@b",
        "http://[::1]:8000/a@b",
        "s3://bucket/a:b@c",
        "file:///data/a:b@c",
        "10.0.0.9:6379",
        "/data/a@b",
        "",
    ],
)
def test_what_has_none_stays_as_it_is(address: str) -> None:
    assert not holds_password(address)
    assert without_account(address) == address


def test_a_name_without_a_password_is_not_shown_either() -> None:
    assert not holds_password("https://ann@host")
    assert without_account("https://ann@host") == "https://host"
