"""A server outside with OpenAI's interface: whether it is there, and what it serves."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from orchestrator.core.errors import ServingError
from orchestrator.core.spec.outside_servers import Outside

SECONDS = 5.0
LONGEST_ANSWER = 1 << 22


class _Here(urllib.request.HTTPRedirectHandler):
    """Follows nobody elsewhere: the key is the server's alone."""

    def redirect_request(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - as its base has it
        return None


def models(server: Outside, key: str = "") -> Sequence[str] | None:
    """Return the models that `server` lists; `None` where it answers, and lists none to us.

    It is asked as the gateway asks it: by the same headers, query, certificates and proxy.

    Raises:
        ServingError: Nobody answers there as a server of HTTP does, or it wants a key.
    """
    address = server.address
    url = "?".join(filter(None, (f"{server.base}/v1/models", server.query)))
    opener = _opener(server)
    try:
        request = urllib.request.Request(url, headers=dict(server.sent(key)))  # noqa: S310 - the caller allows http(s) alone
        with opener.open(request, timeout=SECONDS) as answer:
            body = answer.read(LONGEST_ANSWER)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
            what = f"the server at {address!r} refuses {'the key' if key else 'who has none'}"
            way_out = "--key-file names the file that holds its key"
            raise ServingError(f"{what}; {way_out}") from error
        if error.code >= http.client.INTERNAL_SERVER_ERROR:
            raise ServingError(f"the server at {address!r} answers {error.code}") from error
        return None
    except (OSError, ValueError, http.client.HTTPException) as error:
        what = f"no server answers at {address!r} ({getattr(error, 'reason', error)})"
        raise ServingError(f"{what}; start it first") from error
    return _named(body)


def _opener(server: Outside) -> urllib.request.OpenerDirector:
    proxy = urllib.request.ProxyHandler(None if server.proxy else {})
    try:
        context = ssl.create_default_context(cafile=server.ca_file or None)
    except OSError as error:  # ssl.SSLError is one
        what = f"the CA file {server.ca_file!r} can't be read ({error.strerror or error})"
        raise ServingError(f"{what}; name a file in PEM") from error
    https = urllib.request.HTTPSHandler(context=context)
    return urllib.request.build_opener(proxy, https, _Here())


def _named(body: bytes) -> Sequence[str] | None:
    try:
        return [str(model["id"]) for model in json.loads(body)["data"]]
    except (ValueError, TypeError, KeyError):
        return None  # it is there, and says something else
