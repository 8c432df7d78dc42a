"""MLflow's REST API over one connection that is kept alive.

Why not MLflow's own client: it costs 1.35 s of CPU and 100 MB to import, and at each request more
of this process than of the server. Rules: no retries, because the tracker's thread has a
back-off; every wait is bounded by `ServerAccess.seconds`; errors are two.
"""

from __future__ import annotations

import http.client
import json
import select
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from orchestrator.adapters.mlflow_tracker.mlflow_errors import AwayError, RefusedError

API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
FOR_EVER = frozenset({400, 404, 409, 413})
_WHO = frozenset({401, 403})
_ACCOUNT = "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
_REDIRECTS = range(300, 400)
_REASON = 500
_JSON = {"Content-Type": "application/json"}
_BYTES = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAccess:
    """How to get to a server and be let in: as MLflow's own variables say it.

    `certificates` is a file or folder of authorities to trust, `identity` a client's certificate
    with its key, `proxy` the URL of what stands between. `seconds` bound the connecting and each
    read: a server that hangs holds nobody up for longer.
    """

    user: str = ""
    password: str = ""
    token: str = ""
    insecure: bool = False
    certificates: str = ""
    identity: str = ""
    proxy: str = ""
    seconds: float = 10.0

    def trusted(self) -> ssl.SSLContext:
        """Return what certificates are checked by. Raises `OSError` where a file can't be read."""
        context = ssl.create_default_context()
        if self.certificates:
            where = "capath" if Path(self.certificates).is_dir() else "cafile"
            context.load_verify_locations(**{where: self.certificates})
        if self.identity:
            context.load_cert_chain(self.identity)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class Rest:
    """The REST API of one server. Not for use by two threads at once."""

    def __init__(self, uri: str, access: ServerAccess) -> None:
        """Remember where; nothing is asked yet."""
        parts = urlsplit(uri)
        self._uri, self._parts, self._access = uri, parts, access
        self._base = parts.path.rstrip("/")
        self._headers = _authorization(parts, access)
        if access.proxy and parts.scheme == "http":  # it wants the whole address
            self._base = f"http://{parts.netloc.rpartition('@')[2]}{self._base}"
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str, **fields: str) -> Mapping[str, Any]:
        """Ask for something. Raises `AwayError`, `RefusedError`."""
        return self._json(self._ask("GET", f"{API}{path}?{urlencode(fields)}", b"", _JSON))

    def post(self, path: str, fields: Mapping[str, object]) -> Mapping[str, Any]:
        """Have something done. Raises `AwayError`, `RefusedError`."""
        return self._json(self._ask("POST", f"{API}{path}", json.dumps(fields).encode(), _JSON))

    def patch(self, path: str, fields: Mapping[str, object]) -> Mapping[str, Any]:
        """Have something changed. Raises `AwayError`, `RefusedError`."""
        return self._json(self._ask("PATCH", f"{API}{path}", json.dumps(fields).encode(), _JSON))

    def put_artifact(self, path: str, content: bytes) -> None:
        """Store a file by way of the server. Raises `AwayError`, `RefusedError`."""
        self._ask("PUT", f"{ARTIFACTS}{quote(path)}", content, _BYTES)

    # --- one request --------------------------------------------------------------------------

    def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        try:
            connection = self._open()
            connection.request(
                method, self._base + path, body or None, {**self._headers, **headers}
            )
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            message = " ".join(str(error).split()) or type(error).__name__
            raise AwayError(f"{self._where}: {message}"[:_REASON]) from error
        if response.will_close:
            self.close()
        if response.status != http.HTTPStatus.OK:
            raise self._error(response, answer)
        return answer

    def _open(self) -> http.client.HTTPConnection:
        """Return the connection; a new one where the server has closed it meanwhile."""
        if self._connection is not None and _closed(self._connection):
            self.close()
        if self._connection is None:
            self._connection = _connect(self._parts, self._access)
        return self._connection

    def close(self) -> None:
        """Leave the server. Safe to call twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- what the answer means ----------------------------------------------------------------

    @property
    def _where(self) -> str:
        """The address without a password in it."""
        return f"{self._parts.scheme}://{self._parts.netloc.rpartition('@')[2]}"

    def _json(self, answer: bytes) -> Mapping[str, Any]:
        try:
            fields = json.loads(answer)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise AwayError(f"{self._where} answers, but not as an MLflow server does")
        return fields

    def _error(self, response: http.client.HTTPResponse, answer: bytes) -> Exception:
        """Return the error that an answer other than 200 means, with the server's own words."""
        if response.status in _REDIRECTS:
            elsewhere = response.getheader("Location", "elsewhere")
            return AwayError(f"{self._where} sends on to {elsewhere!r}; give that as tracking.uri")
        try:
            body = json.loads(answer)
            line = f"{body['error_code']}: {body['message']}"
        except (ValueError, TypeError, KeyError):
            line = f"{self._where} answers {response.status} {response.reason}"
        line = " ".join(line.split())[:_REASON]
        if response.status in _WHO:
            line = f"{line}; {_ACCOUNT}"
        return RefusedError(line) if response.status in FOR_EVER else AwayError(line)


def _authorization(parts: SplitResult, access: ServerAccess) -> dict[str, str]:
    user, password = parts.username or access.user, parts.password or access.password
    if user:
        return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}
    return {"Authorization": f"Bearer {access.token}"} if access.token else {}


def _connect(parts: SplitResult, access: ServerAccess) -> http.client.HTTPConnection:
    """Return a connection that will be opened by its first request."""
    if not parts.hostname:
        raise AwayError("tracking.uri is not the address of an MLflow server: http://HOST:PORT")
    proxy = urlsplit(access.proxy)
    near = proxy if proxy.hostname else parts
    if parts.scheme != "https":
        return http.client.HTTPConnection(str(near.hostname), near.port, timeout=access.seconds)
    connection = http.client.HTTPSConnection(
        str(near.hostname), near.port, timeout=access.seconds, context=access.trusted()
    )
    if near is proxy:
        connection.set_tunnel(parts.hostname, parts.port or 443)
    return connection


def _closed(connection: http.client.HTTPConnection) -> bool:
    """Whether the other side has closed: between two requests there is nothing else to read."""
    sock = connection.sock
    return sock is not None and bool(select.select([sock], [], [], 0)[0])
