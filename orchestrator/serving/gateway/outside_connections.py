"""The way to servers that somebody else runs: proxies, authorities of certificates, queries."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl, urlencode
from urllib.request import getproxies, proxy_bypass


class Authorities:
    """Authorities of certificates, by the file that holds theirs; read anew when it changes."""

    def __init__(self) -> None:
        self._contexts: dict[str, tuple[int, ssl.SSLContext]] = {}

    def context(self, file: str) -> ssl.SSLContext:
        """Return what checks certificates by those in `file`, and by no others.

        Raises:
            OSError: It can't be read.
        """
        changed = Path(file).stat().st_mtime_ns
        known = self._contexts.get(file)
        if known is None or known[0] != changed:
            known = self._contexts[file] = (changed, ssl.create_default_context(cafile=file))
        return known[1]


def with_query(path: str, query: str) -> str:
    """Return `path` with `query`, whose fields win over those of a client."""
    path, _, asked = path.partition("?")
    own = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
    left = [pair for pair in parse_qsl(asked, keep_blank_values=True) if pair[0] not in own]
    return f"{path}?{'&'.join(filter(None, (urlencode(left), query)))}"


@lru_cache(maxsize=256)
def proxy_of(scheme: str, host: str) -> str | None:
    """Return the proxy that the environment names for a host, as it was when this was asked."""
    return None if proxy_bypass(host) else getproxies().get(scheme)
