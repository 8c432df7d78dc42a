"""A server outside with OpenAI's interface: whether it is there, and what it serves."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Sequence

from orchestrator.core.errors import ServingError

SECONDS = 5.0
LONGEST_ANSWER = 1 << 22
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # as the gateway asks it


def models(address: str, token: str = "") -> Sequence[str] | None:
    """Return the models that the server lists; `None` where it answers, and lists none to us.

    Raises:
        ServingError: Nobody answers at `address` as a server of HTTP does, or it wants a key.
    """
    url = f"{address.rstrip('/').removesuffix('/v1')}/v1/models"
    try:
        request = urllib.request.Request(url)  # noqa: S310 - the caller allows http(s) alone
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with _open(request, timeout=SECONDS) as answer:
            body = answer.read(LONGEST_ANSWER)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
            what = f"the server at {address!r} refuses {'the key' if token else 'who has none'}"
            way_out = "--key-file names the file that holds its key"
            raise ServingError(f"{what}; {way_out}") from error
        if error.code >= http.client.INTERNAL_SERVER_ERROR:
            raise ServingError(f"the server at {address!r} answers {error.code}") from error
        return None
    except (OSError, ValueError, http.client.HTTPException) as error:
        what = f"no server answers at {address!r} ({getattr(error, 'reason', error)})"
        raise ServingError(f"{what}; start it first") from error
    return _named(body)


def _named(body: bytes) -> Sequence[str] | None:
    try:
        return [str(one["id"]) for one in json.loads(body)["data"]]
    except (ValueError, TypeError, KeyError):
        return None  # it is there, and says something else
