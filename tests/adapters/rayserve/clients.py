"""Who asks the replicas of the tests: by the official client, or by plain HTTP."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections import Counter

import openai

from orchestrator.adapters.rayserve import RayServing
from orchestrator.core.endpoints.life import Deployment
from orchestrator.messages import Failed, Message, Succeeded
from orchestrator.supervisor.record import wait

STREAMS, TOKENS = 8, 32
SECONDS = 120.0


def ask(url: str, text: str, key: str = "secret") -> str | None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        messages = [{"role": "user", "content": text}]
        answer = client.chat.completions.create(model="echo", messages=messages)  # type: ignore[arg-type]
        return answer.choices[0].message.content


def answers(url: str) -> bool:
    try:
        return ask(url, "back") == "back"
    except openai.OpenAIError:
        return False


def stream(url: str, prompt: str) -> list[str]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0) as client:
        chunks = client.completions.create(model="echo", prompt=prompt, stream=True)
        return [chunk.choices[0].text for chunk in chunks]


def predict(url: str, body: object) -> object:
    headers = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/predict", json.dumps(body).encode(), headers)  # noqa: S310 - our own
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
        return json.loads(answer.read())


def model_of(url: str) -> str:
    try:
        with urllib.request.urlopen(f"{url}/model", timeout=5) as answer:  # noqa: S310 - our own
            return str(answer.read().decode())
    except OSError:
        return ""


class Streams:
    """Clients that stream one answer after the other, until they are told to end."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self.tokens: Counter[str] = Counter()
        self.answers, self.wrong = 0, list[str]()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        clients = (urls[number % len(urls)] for number in range(STREAMS))
        self._threads = [threading.Thread(target=self._run, args=(url,)) for url in clients]
        for thread in self._threads:
            thread.start()

    def _run(self, url: str) -> None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0) as client:
            while not self._ended.is_set():
                try:
                    self._ask(client)
                except openai.OpenAIError as error:
                    with self._lock:
                        self.wrong.append(repr(error))

    def _ask(self, client: openai.OpenAI) -> None:
        chunks = client.completions.create(
            model="echo", prompt="1 + 1 =", max_tokens=TOKENS, temperature=0, stream=True
        )
        finish, versions = None, list[str]()
        for chunk in chunks:
            versions.append(str(chunk.system_fingerprint))
            finish = finish or (chunk.choices and chunk.choices[0].finish_reason)
        with self._lock:
            self.answers += 1
            self.tokens.update(versions)
            if finish not in {"stop", "length"}:
                self.wrong.append(f"an answer ended by {finish!r}")

    def made_by(self, version: str, before: int = 0) -> bool:
        """Wait until more than `before` tokens were made by a version."""
        return wait(lambda: self.tokens[version] > before, SECONDS)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def outcome(serving: RayServing, deployment: Deployment, seconds: float = 60.0) -> list[Message]:
    """Deploy, and return all that is said, the outcome last."""
    serving.start(deployment)
    said: list[Message] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        said.extend(serving.poll(deployment.key))
        if said and isinstance(said[-1], Succeeded | Failed):
            return said
        time.sleep(0.1)  # noqa: TID251 - a real cluster needs real time
    raise AssertionError(said)
