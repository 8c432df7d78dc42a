"""Servers that somebody else runs, and how they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


def is_address(text: str) -> bool:
    """Return whether it is http or https, with a host and, at most, a port that there can be."""
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets without an address, a port that is none
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """An OpenAI-compatible address that somebody else runs, as a revision of an endpoint.

    `model` is its name for the model. Where it wants an API key, `key_file` is the file on each
    host of a gateway that holds it, or `key_variable` names the environment variable of a gateway;
    `key_header` is the header that takes it, where that is not `Authorization`. A query of
    the address (`?api-version=1`) and `headers` (`Name: value`) go with each request. `ca_file`
    is the file on each of those hosts that its certificate is checked by; `proxy` has the proxy
    asked that the environment names.
    """

    address: str
    model: str
    key_variable: str = ""
    key_file: str = ""
    key_header: str = ""
    headers: tuple[str, ...] = ()
    ca_file: str = ""
    proxy: bool = False

    @property
    def base(self) -> str:
        """The address that `/v1/...` comes after."""
        return self.address.partition("?")[0].rstrip("/").removesuffix("/v1")

    @property
    def query(self) -> str:
        """What stands behind the `?` of each request."""
        return self.address.partition("?")[2]

    def sent(self, key: str) -> tuple[tuple[str, str], ...]:
        """Return the headers of a request, with the API `key`, if there is one."""
        named = (line.partition(":") for line in self.headers)
        more = tuple((name.strip().lower(), value.strip()) for name, _, value in named)
        if not key:
            return more
        if self.key_header:
            return (*more, (self.key_header.lower(), key))
        return (*more, ("authorization", f"Bearer {key}"))
