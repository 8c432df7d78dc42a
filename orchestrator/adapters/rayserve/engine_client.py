"""What is asked of an engine server at its port: whether it is ready, well, itself, and right."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from orchestrator.adapters.rayserve.vitals import wrong_in
from orchestrator.core.spec.engine_command import filled
from orchestrator.core.spec.engines import EngineSpec, Json, UpdateStep

FOREIGN = (OSError, http.client.HTTPException, ValueError)
_MODELS = "/v1/models"
_TEXT = "1"
_BUSY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_NO_NUMBER = re.compile(r"not JSON compliant|\bnan\b", re.IGNORECASE)
_KEY = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class NotYetError(Exception):
    """It can't be asked yet."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered."""

    status: int
    text: str


class EngineClient:
    """One engine server at `host`, which calls its model `name` and wants `key`.

    `port` is set when it is known.
    """

    def __init__(self, spec: EngineSpec, host: str, name: str, key: str) -> None:
        self._spec, self._host, self._name, self._key = spec, host, name, key
        self._probe = spec.probe
        self.port = 0

    @property
    def url(self) -> str:
        """Base URL at which the engine answers."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    @property
    def probes(self) -> bool:
        """Whether it can be asked for something that it computes."""
        return bool(self._probe)

    @property
    def scores_texts(self) -> bool:
        """Whether it can be asked for the log-probabilities of texts."""
        return self._probe.endswith("/v1/completions")

    def ready(self) -> bool:
        """Return whether it says that it can be asked."""
        try:
            status = self.ask("GET", self._spec.ready, self._spec.health_seconds).status
        except FOREIGN:
            return False
        return status == HTTPStatus.OK

    def unwell(self) -> str:
        """Return why it says that it is not well, or that it says nothing; empty while it is."""
        path = self._spec.health
        try:
            status = self.ask("GET", path, self._spec.health_seconds).status
        except FOREIGN as error:
            return f"{path} does not answer: {error!r}"
        return "" if status == HTTPStatus.OK else f"{path} answers {status}"

    def metrics(self) -> str:
        """Return its figures as it tells them. Raises one of `FOREIGN`."""
        return self.ask("GET", self._spec.metrics, self._spec.health_seconds).text

    def introduced(self) -> str:
        """Return why it is not the server that was started; empty where it is.

        It knows the key and the name of the model. From now on it is asked for a token, or for
        the embedding of a text, or for nothing, as it can.

        Raises:
            NotYetError: It can't say yet.
        """
        status, listed = self._first("GET", _MODELS)
        if status in _KEY:
            return f"it does not take its key: {_MODELS} answers {status}"
        names = _names(listed)
        if names is not None and self._name not in names:
            return f"it calls its model {', '.join(names)!r}, not {self._name!r}"
        self._probe = ""
        asked = (self._spec.probe, self._spec.embeds) if self._spec.probe else ()
        for path in filter(None, asked):
            status, text = self._first("POST", path, self._question(path))
            if status in _KEY:
                return f"it does not take its key: {path} answers {status}"
            if not _refused(status, text):
                self._probe = path
                wrong = _wrong(status, text)
                return f"it runs, but one token: {wrong}" if wrong else ""
        return ""

    def probe(self) -> str:
        """Ask for one token, or the embedding of a text; return what is wrong."""
        path = self._probe
        try:
            reply = self.ask("POST", path, self._spec.deadline, self._question(path))
        except FOREIGN as error:
            return f"no answer: {error!r}"
        if reply.status in _BUSY:
            return ""  # it works
        return _wrong(reply.status, reply.text)

    def scores(self, prompt: str | tuple[int, ...]) -> list[float] | None:
        """Return the log-probabilities of a prompt, but for the first token, which has none.

        Nothing where they are wrong; `None` where it refuses to tell them.
        """
        body = {**self._question(self._spec.probe), "prompt": prompt, "echo": True}
        try:
            reply = self.ask("POST", self._spec.probe, self._spec.long_seconds, body)
            if _refused(reply.status, reply.text):
                return None
            answer = json.loads(reply.text)
            if wrong_in(answer | {"choices": [_without_first(answer["choices"][0])]}):
                return []
            values = answer["choices"][0]["logprobs"]["token_logprobs"]
        except (*FOREIGN, LookupError, TypeError, AttributeError):
            return []
        return [float(value) for value in values if value is not None]

    def take(self, step: UpdateStep, places: Mapping[str, str]) -> str:
        """Carry out one step of those by which it takes new weights; return what is wrong."""
        try:
            body = filled(step.body, places)
            reply = self.ask(step.method, step.path, self._spec.long_seconds, body)
        except FOREIGN as error:
            return f"{step.path} does not answer: {error!r}"
        if reply.status >= HTTPStatus.MULTIPLE_CHOICES:
            return f"{step.path} answers {reply.status}: {reply.text[:300]}"
        return ""

    def ask(self, method: str, path: str, seconds: float, body: Json = None) -> Reply:
        """Ask the engine. Raises one of `FOREIGN`."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=seconds)
        headers = {"Authorization": f"Bearer {self._key}"}
        content = None if body is None else json.dumps(body)
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            return Reply(answer.status, answer.read().decode(errors="replace"))
        finally:
            connection.close()

    def _first(self, method: str, path: str, body: Json = None) -> tuple[int, str]:
        """Ask for something for the first time, which may take long."""
        try:
            reply = self.ask(method, path, self._spec.long_seconds, body)
        except TimeoutError:
            return HTTPStatus.GATEWAY_TIMEOUT, f"nothing came within {self._spec.long_seconds:g} s"
        except FOREIGN as error:
            raise NotYetError(repr(error)) from error
        if reply.status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise NotYetError(f"{path} answers 503: {reply.text[:200]!r}")
        return reply.status, reply.text

    def _question(self, path: str) -> dict[str, Json]:
        """Return what is posted to `path`."""
        if path.endswith("/embeddings"):
            return {"model": self._name, "input": _TEXT}
        if path.endswith("/chat/completions"):
            chat = [{"role": "user", "content": _TEXT}]
            return {"model": self._name, "messages": chat, "max_tokens": 1}
        single_token = {"max_tokens": 1, "temperature": 0, "logprobs": 1}
        return {"model": self._name, "prompt": _TEXT, **single_token}


def _refused(status: int, text: str) -> bool:
    """Whether an answer is a refusal of the question; vLLM refuses to write what is no number."""
    refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return refused and not _NO_NUMBER.search(text)


def _wrong(status: int, text: str) -> str:
    """Return what is wrong with the answer to a question that the engine can answer."""
    if status >= HTTPStatus.BAD_REQUEST:
        return f"it answers {status}: {text[:200]!r}"
    try:
        return wrong_in(json.loads(text))
    except ValueError as error:
        return f"it answers no JSON: {error}"


def _names(listed: str) -> list[str] | None:
    """Return what a server calls its models; `None` where it does not say."""
    try:
        return [str(model["id"]) for model in json.loads(listed)["data"]]
    except (ValueError, LookupError, TypeError):
        return None


def _without_first(choice: Mapping[str, object]) -> dict[str, object]:
    """Return a choice without the log-probability of its first token, which has none."""
    logprobs = choice["logprobs"]
    assert isinstance(logprobs, Mapping), "they were asked for"  # noqa: S101
    return {**choice, "logprobs": {"token_logprobs": logprobs["token_logprobs"][1:]}}
