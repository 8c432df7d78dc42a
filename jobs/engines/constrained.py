"""Answers that follow a grammar: JSON of a schema, a regular expression, a grammar, a choice.

llguidance says which tokens may come next. Its masks are computed in threads of their own, while
the model computes the scores that they are for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from jobs.engines.processors import ImpossibleError
from orchestrator.engine import Grammar

SPACE = r"[ \t\n]{0,16}"  # between the parts of JSON: room to indent, and an end
THREADS = 2
_BITS = 32


class Grammars:
    """Compiles grammars for one tokenizer, which llguidance reads at the first one.

    Args:
        tokenizer: The tokenizer of transformers.
        vocabulary: Tokens that the model has rows for.
        ends: Tokens that end an answer.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, ends: Collection[int]) -> None:  # noqa: ANN401 - foreign and untyped
        self._source = (tokenizer, vocabulary, sorted(ends))
        self._read: Any = None
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="grammar")

    def compile(self, grammar: Grammar) -> LlgConstraint:
        """Return the constraint of one answer. Takes a moment.

        Raises:
            ValueError: The grammar is wrong, or has what the library can't do.
        """
        from llguidance import LLMatcher

        try:
            source = _source_of(grammar)
            tokenizer = self._tokenizer()
            problem, notes = LLMatcher.validate_grammar_with_warnings(source, tokenizer)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{grammar.kind}: {_line(error)}") from error
        if problem:
            raise ValueError(f"{grammar.kind}: {_line(notes[0] if notes else 'wrong')}")
        matcher = LLMatcher(tokenizer, source, log_level=0)  # it prints what its errors say too
        return LlgConstraint(matcher, self._source[1], self._threads)

    def close(self) -> None:
        """End the threads. Safe to call twice."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _tokenizer(self) -> Any:  # noqa: ANN401 - as above
        from llguidance.hf import from_tokenizer

        tokenizer, vocabulary, ends = self._source
        with self._lock:
            if self._read is None:
                self._read = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=ends or None)
            return self._read


class LlgConstraint:
    """What may come next in one answer; satisfies `processors.Constraint`."""

    def __init__(self, matcher: Any, vocabulary: int, threads: ThreadPoolExecutor) -> None:  # noqa: ANN401 - as above
        self._matcher = matcher
        self._words = -(-vocabulary // _BITS)
        self._threads = threads
        self._mask: Future[Tensor] = threads.submit(self._compute)

    def mask(self) -> Tensor:
        """Return the tokens that are allowed, as bits of 32-bit numbers."""
        return self._mask.result()

    def take(self, token: int) -> bool:
        """Go on by a token; return whether nothing can follow it.

        Raises:
            ImpossibleError: The token was not allowed, or nothing that the grammar allows follows.
        """
        self._matcher.consume_token(token)
        if self._matcher.is_error():
            raise self._dead_end()
        if self._matcher.is_stopped():
            return True
        self._mask = self._threads.submit(self._compute)
        return False

    def _compute(self) -> Tensor:
        mask = torch.zeros(self._words, dtype=torch.int32)
        self._matcher.unsafe_compute_mask_ptr(mask.data_ptr(), mask.nbytes)
        if self._matcher.is_error():
            raise self._dead_end()
        return mask

    def _dead_end(self) -> ImpossibleError:
        why = str(self._matcher.get_error()).partition("<state>")[
            0
        ]  # what follows is for its author
        return ImpossibleError(f"the grammar can't go on: {_line(why)}")


def _source_of(grammar: Grammar) -> str:
    """Return a grammar as llguidance reads it."""
    from llguidance import LLMatcher, grammar_from

    if grammar.kind in {"json_object", "json_schema"}:
        schema = grammar.text if grammar.kind == "json_schema" else '{"type": "object"}'
        return str(
            LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": SPACE})
        )
    if grammar.kind == "regex":
        return str(LLMatcher.grammar_from_regex(grammar.text))
    if grammar.kind == "choice":
        choices = json.loads(grammar.text)
        if not (
            isinstance(choices, list) and choices and all(isinstance(c, str) for c in choices)
        ):
            raise ValueError(f"{grammar.text!r} is no list of texts")
        return str(LLMatcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, choices))))
    return str(grammar_from("grammar", grammar.text))


def _line(problem: object) -> str:
    return " ".join(str(problem).split())[:300]
