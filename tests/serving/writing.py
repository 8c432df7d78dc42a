"""An engine that echoes, and writes down what it was asked; and how tests ask it."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import openai

from jobs.engines.echo import EchoEngine
from orchestrator.engine import Piece, Prompt, Sampling, Score
from tests.jobs.engines.tiny_llama import HARDWARE


class Writing(EchoEngine):
    """Echoes; writes down what it was asked; fails as a test says."""

    def __init__(self) -> None:
        super().__init__(Path(), HARDWARE, max_context=300)
        self.vocabulary = 0x3000
        self.samplings: list[Sampling] = []
        self.chats: list[tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]] = []
        self.threads: list[str] = []
        self.broken: Exception | None = None
        self.after = 0
        self.ill = ""
        self.wishes: dict[str, float] = {}
        self.types: dict[str, str] = {}

    @property
    def defaults(self) -> Mapping[str, float]:
        return self.wishes

    def health(self) -> str:
        return self.ill

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        self.threads.append(threading.current_thread().name)
        tokens = super().encode(text)
        return [0x2000, *tokens] if special and text.startswith("begin") else tokens

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> list[int]:
        told = dict(variables or {})
        self.chats.append((messages, told))
        return self.encode(str(messages[-1]["content"]) + (" " if "tools" in told else ""))

    async def generate(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Prompt | Piece, None]:
        self.samplings.append(sampling)
        if sampling.prompt_logprobs is not None:
            scores = [Score(-1.0, (65, token), (-0.5, -1.0)) for token in prompt[1:]]
            yield Prompt((None, *scores), self.version)
        if not sampling.max_tokens:
            return
        count = 0
        plain = Sampling(
            max_tokens=sampling.max_tokens, stop=sampling.stop, logprobs=sampling.logprobs
        )
        async for piece in super().generate(prompt, plain):
            if self.broken is not None and count >= self.after:
                raise self.broken
            count += 1
            yield piece


def chat(client: openai.OpenAI, content: str = "hi", **more: Any) -> Any:
    messages = [{"role": "user", "content": content}]
    return client.chat.completions.create(model="echo", messages=messages, **more)  # type: ignore[arg-type]


def complete(client: openai.OpenAI, **more: Any) -> Any:
    return client.completions.create(**{"model": "echo", "prompt": "abc", **more})
