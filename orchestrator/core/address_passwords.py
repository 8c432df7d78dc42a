"""Addresses that hold a password: a config and a database are shown, so none belongs there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestrator.core.errors import Problem, shown

# Figures after the colon are a port; a password may hold what should have been escaped.
_PASSWORD = re.compile(r"(^(?://)?|://)[^/:@\[]*:(?!\d*(?:[/?#]|$))[^@]*@")
_ACCOUNT = re.compile(r"//[^/]*@")


def holds_password(address: str) -> bool:
    """Return whether `address` has a password in it, or may have one where it is malformed."""
    return bool(_PASSWORD.search(address))


def without_account(address: str) -> str:
    """Return `address` as it may be shown: without who asks there, and by which password."""
    password = _PASSWORD.search(address)
    if password is None:
        return _ACCOUNT.sub("//", address)
    return address[: password.end(1)] + address[password.end(1) :].rpartition("@")[2]


def password_problems(path: str, address: str, hint: str) -> Iterator[Problem]:
    """Yield that the value at `path` holds a password; `hint` says where that belongs."""
    if holds_password(address):
        what = f"{shown(without_account(address))} holds a password, which would be shown"
        yield Problem(path, what, hint)
