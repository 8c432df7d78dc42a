"""A steady load on an endpoint, by the official client: whole answers and streams, in turns."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Self

import openai

TOKENS = 12
ENDS = frozenset({"stop", "length"})  # an engine that dies may say "abort"


@dataclass
class Load:
    """`connections` clients that ask without a pause until they are told to stop."""

    base: str
    model: str
    connections: int = 16
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        ask = [threading.Thread(target=self._ask, args=(n,)) for n in range(self.connections)]
        self._threads = ask
        for thread in ask:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def line(self) -> str:
        """What came of it, in one line."""
        taken = sorted(self.seconds) or [0.0]
        p50, p99 = taken[len(taken) // 2], taken[int(0.99 * len(taken))]
        told = f"{self.answered} answered, {len(self.failures)} failed"
        return f"{told}, p50 {p50:.3f} s, p99 {p99:.3f} s, longest {taken[-1]:.3f} s"

    def _ask(self, number: int) -> None:
        with openai.OpenAI(
            base_url=self.base, api_key="none", max_retries=0, timeout=60
        ) as client:
            turn = number
            while not self._stop.is_set():
                turn += 1
                self._once(client, turn)

    def _once(self, client: openai.OpenAI, turn: int) -> None:
        began = time.perf_counter()
        try:
            version = self._stream(client, turn) if turn % 2 else self._whole(client, turn)
        except (openai.OpenAIError, AssertionError) as error:
            with self._lock:
                self.failures.append(f"{time.strftime('%X')} {error!r:.200}")
            return
        with self._lock:
            self.answered += 1
            self.seconds.append(time.perf_counter() - began)
            self.versions.add(version)

    def _whole(self, client: openai.OpenAI, turn: int) -> str:
        answer = client.completions.create(
            model=self.model, prompt=f"{turn} + {turn} =", max_tokens=TOKENS, temperature=0
        )
        assert answer.choices[0].finish_reason in ENDS, answer
        return str(answer.system_fingerprint)

    def _stream(self, client: openai.OpenAI, turn: int) -> str:
        stream = client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": f"{turn} + {turn} ="}],
            max_tokens=TOKENS,
            stream=True,
        )
        last = [chunk for chunk in stream if chunk.choices][-1]
        assert last.choices[0].finish_reason in ENDS, last
        return str(last.system_fingerprint)
