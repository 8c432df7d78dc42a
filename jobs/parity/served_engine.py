"""The engine that will serve, asked as clients ask it, and for what it may tell besides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.data.tokenizer import load_tokenizer
from jobs.engines.weights import load
from jobs.parity.comparison import Responses
from jobs.parity.distances import right
from jobs.parity.questions import Question
from jobs.parity.reading import Chat, Reference
from jobs.parity.reference import rendered
from jobs.parity.weight_norms import Norms, norms, of_plain
from orchestrator.engine import Sampling, Score

ENGINE, FOLDER = "the engine, as it has loaded them", "the folder, as this product reads it"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedNorms:
    """The norms of the blocks of the served weights, and where they were read."""

    norms: Norms
    source: str


class ServedEngine:
    """An engine that is a `Scorer`, and the folder that it has loaded."""

    def __init__(self, engine: Any, folder: Path) -> None:  # noqa: ANN401 - any engine
        self._engine, self._folder = engine, folder
        self._tokenizer = load_tokenizer(folder)

    @property
    def computed(self) -> str:
        """The type in which the engine computes; empty where it does not say."""
        types: Mapping[str, str] = getattr(self._engine, "types", {})
        return types.get("computed", "")

    def responses(self, reference: Reference, progress: Callable[[int, int], object]) -> Responses:
        """Return what it says to the questions of the reference."""
        asked = reference.questions
        tells = bool(reference.experts) and hasattr(self._engine, "experts")
        scores: list[Sequence[Score]] = []
        experts: list[npt.NDArray[np.int32]] = []
        for done, question in enumerate(asked, start=1):
            scores.append(self._engine.score(question.tokens, question.begin, reference.top))
            if tells:
                chosen = self._engine.experts(question.tokens, question.begin)
                experts.append(np.array(chosen, np.int32))
            progress(done, len(asked))
        answers = self._answers(
            [self._prompt(question) for question in asked], reference.max_tokens
        )
        return Responses(
            scores=scores,
            answers=answers,
            right=right(reference.task, asked, answers),
            experts=experts if all(choices.size for choices in experts) else (),
        )

    def weights(self) -> ServedNorms:
        """Return what can be read of the weights: of the engine, where it tells."""
        if hasattr(self._engine, "norms"):
            return ServedNorms(norms=of_plain(self._engine.norms()), source=ENGINE)
        return ServedNorms(norms=norms(load(self._folder, "auto", "cpu")), source=FOLDER)

    def other_texts(self, reference: Reference) -> int:
        """Return how many texts it encodes otherwise."""
        return sum(self._engine.encode(text) != [*tokens] for text, tokens in reference.texts)

    def other_chats(self, reference: Reference) -> int:
        """Return how many chats and prompts it renders or encodes otherwise."""
        asked = sum(
            self._prompt(question) != [*question.prompt] for question in reference.questions
        )
        return asked + sum(map(self._differs, reference.chats))

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()

    def _prompt(self, question: Question) -> list[int]:
        """Return the prompt as the engine encodes it; that of a plain text as it is."""
        if question.example is None:
            return list(question.prompt)
        chat = [{"role": "user", "content": question.example["question"]}]
        try:
            tokens: list[int] = self._engine.encode_chat(chat)
        except ValueError:  # no template, or one that refuses: other tokens, and worth an answer
            return list(question.prompt)
        return tokens

    def _answers(self, prompts: Sequence[Sequence[int]], most: int) -> list[str]:
        """Return the greedy answers to all prompts, made together."""

        async def answer(prompt: Sequence[int]) -> str:
            sampling = Sampling(max_tokens=most, temperature=0.0)
            pieces = [piece.text async for piece in self._engine.generate(prompt, sampling)]
            return "".join(pieces)

        async def answers() -> list[str]:
            return await asyncio.gather(*map(answer, prompts))

        return [text.strip() for text in asyncio.run(answers())]

    def _differs(self, chat: Chat) -> bool:
        if rendered(self._tokenizer, chat.messages) != chat.text:
            return True
        tokens: list[int] = self._engine.encode_chat(chat.messages)
        return tokens != [*chat.tokens]
