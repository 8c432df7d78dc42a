"""Addresses that hold a password: a config and a database are shown, so none belongs there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestrator.core.credentials import has_credential_field, names_credential
from orchestrator.core.errors import Problem, shown

# Figures after the colon are a port; a password may hold what should have been escaped.
_PASSWORD = re.compile(r"(^(?://)?|://)[^/:@\[]*:(?!\d*(?:[/?#]|$))[^@]*@")
_ACCOUNT = re.compile(r"//[^/]*@")
_ASKED = re.compile(r"[?&;#]([^=&;#]*)=[^&;#]")  # a field of the query, which has a value


def holds_password(address: str) -> bool:
    """Return whether `address` has a password in it, or may have one where it is malformed."""
    return bool(_PASSWORD.search(address)) or _asks_with_credential(address)


def is_credential(name: str, value: str) -> bool:
    """Return whether a variable is a credential: by its name, or by what its value holds."""
    return names_credential(name) or holds_password(value) or has_credential_field(value)


def without_account(address: str) -> str:
    """Return `address` as it may be shown: without who asks there, and by which password."""
    if _asks_with_credential(address):
        address = address.partition("?")[0] if "?" in address else ""
    password = _PASSWORD.search(address)
    if password is None:
        return _ACCOUNT.sub("//", address)
    return address[: password.end(1)] + address[password.end(1) :].rpartition("@")[2]


def _asks_with_credential(address: str) -> bool:
    return any(names_credential(field.group(1)) for field in _ASKED.finditer(address))


def password_problems(path: str, address: str, hint: str) -> Iterator[Problem]:
    """Yield that the value at `path` holds a password; `hint` says where that belongs."""
    if holds_password(address):
        what = f"{shown(without_account(address))} holds a password, which would be shown"
        yield Problem(path, what, hint)
