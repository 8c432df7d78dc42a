"""An engine that answers with the prompt, a character a token: for tests and benchmarks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from jobs.engines.detokenizer import StopFilter
from orchestrator.engine import Piece, Prompt, Sampling
from orchestrator.job import Hardware

SLOTS = 1 << 16  # answers cost it nothing
_ASKS_FOR_NOTHING = Sampling()
_UNABLE = ("grammar", "prompt_logprobs", "stop_token_ids", "logit_bias", "min_tokens")


class EchoEngine:
    """Satisfies `orchestrator.engine.Engine`. Waits `delay` seconds before each token.

    `active` is the number of answers that are being generated.
    """

    def __init__(
        self,
        model_folder: Path,
        hardware: Hardware,
        *,
        version: str | None = None,
        max_context: int = 4096,
        delay: float = 0.0,
    ) -> None:
        del hardware
        self.version = model_folder.name if version is None else version
        self.max_context = max_context
        self.vocabulary = 0x110000
        self.longest_token = 4
        self.active = 0
        self._closed = ""
        self._generated = self._cached = 0
        self._delay = delay

    @property
    def defaults(self) -> Mapping[str, float]:
        """Nothing: it draws no tokens."""
        return {}

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return the code points of `text`."""
        del special
        return [ord(character) for character in text]

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> list[int]:
        """Return the code points of the last message."""
        del variables
        return self.encode(str(messages[-1]["content"]))

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of code points."""
        return "".join(map(chr, tokens))

    def token_bytes(self, token: int) -> bytes:
        """Return a code point in UTF-8."""
        return chr(token).encode()

    async def generate(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Prompt | Piece, None]:
        """Yield the prompt; ends by `length` if that is longer than `max_tokens`.

        Raises:
            ValueError: The request asks for what no echo has.
            RuntimeError: The engine is closed.
        """
        self._check(sampling)
        self.active += 1
        held = len(prompt)
        self._cached += held
        try:
            stops = StopFilter(sampling.stop, include=sampling.include_stop)
            answer = prompt[: sampling.max_tokens]
            for left, token in zip(range(len(answer) - 1, -1, -1), answer, strict=True):
                await asyncio.sleep(self._delay)
                self._check_open()
                self._generated, self._cached, held = (
                    self._generated + 1,
                    self._cached + 1,
                    held + 1,
                )
                text, stopped = stops.add(chr(token), last=not left)
                finish = None if left and not stopped else "stop"
                if not stopped and not left and len(prompt) > sampling.max_tokens:
                    finish = "length"
                scores = self._scores(token, sampling)
                yield Piece(text, token, *scores, finish, self.version, stops.came)
                if finish:
                    return
        finally:
            self.active -= 1
            self._cached -= held

    def statistics(self) -> Mapping[str, float]:
        """Return how many answers are being made; none ever waits, and there is no cache."""
        numbers = {"running": self.active, "waiting": 0, "held": self._cached}
        return {**numbers, "tokens": self._generated, "slots": SLOTS, "cache_used": 0.0}

    def health(self) -> str:
        """Return that it is closed, where it is; else it always serves."""
        return self._closed

    def update(self, folder: Path, version: str, base: str | None = None) -> None:
        """Take the version of another folder.

        Raises:
            ValueError: It is not there, or `base` does not serve.
            RuntimeError: The engine is closed.
        """
        self._check_open()
        if not folder.is_dir():
            raise ValueError(f"there is no model folder {str(folder)!r}")
        if base not in (None, self.version):
            raise ValueError(f"version {self.version!r} serves, not {base!r}")
        self.version = version

    def close(self) -> None:
        """Answer nobody any more. Safe to call twice."""
        self._closed = "the engine is closed"

    def _check(self, sampling: Sampling) -> None:
        self._check_open()
        for name in _UNABLE:
            if getattr(sampling, name) != getattr(_ASKS_FOR_NOTHING, name):
                raise ValueError(f"an echo has no {name}")

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(self._closed)

    def _scores(
        self, token: int, sampling: Sampling
    ) -> tuple[float | None, tuple[tuple[int, float], ...]]:
        """Return a token's log-probability, and the likeliest token: it is sure of its answer."""
        if sampling.logprobs is None:
            return None, ()
        return 0.0, ((token, 0.0),) if sampling.logprobs else ()
