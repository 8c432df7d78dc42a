"""Addresses that hold a password: a config and a database are shown, so none belongs there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from orchestrator.core.errors import Problem, shown

_ACCOUNT = re.compile(r"//[^/]*@")


def holds_password(address: str) -> bool:
    """Return whether `address` has a password in it, or may have one where it is malformed."""
    try:
        return bool(urlsplit(address).password)
    except ValueError:
        return bool(_ACCOUNT.search(address))


def without_account(address: str) -> str:
    """Return `address` as it may be shown: without who asks there, and by which password."""
    return _ACCOUNT.sub("//", address)


def password_problems(path: str, address: str, hint: str) -> Iterator[Problem]:
    """Yield that the value at `path` holds a password; `hint` says where that belongs."""
    if holds_password(address):
        what = f"{shown(without_account(address))} holds a password, which would be shown"
        yield Problem(path, what, hint)
