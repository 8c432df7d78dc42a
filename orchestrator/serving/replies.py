"""What is answered: the two response shapes of the OpenAI API, whole and in chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from orchestrator.engine import Piece

Json = dict[str, Any]
Word: TypeAlias = Callable[[int], bytes]  # what a token stands for

_LEAST = -9999.0  # what OpenAI writes for a probability of nothing: JSON has no infinity


class Shape(Protocol):
    """How one endpoint writes its choices."""

    prefix: str
    whole: str
    chunk: str

    def opening(self, index: int) -> Json | None:
        """Return the first choice of a stream, before any token."""
        ...

    def delta(self, index: int, piece: Piece, offset: int) -> Json:
        """Return a choice of a chunk; `offset` characters came before."""
        ...

    def choice(self, index: int, pieces: Sequence[Piece]) -> Json:
        """Return a whole choice."""
        ...


class CompletionShape:
    """`/v1/completions`."""

    prefix = "cmpl-"
    whole = chunk = "text_completion"

    def __init__(self, word: Word) -> None:
        self._word = word

    def opening(self, index: int) -> None:
        """Return nothing: text begins with its first token."""

    def delta(self, index: int, piece: Piece, offset: int) -> Json:
        """Return the text of one token."""
        return _completion(index, [piece], offset, self._word)

    def choice(self, index: int, pieces: Sequence[Piece]) -> Json:
        """Return all text."""
        return _completion(index, pieces, 0, self._word)


class ChatShape:
    """`/v1/chat/completions`."""

    prefix = "chatcmpl-"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def __init__(self, word: Word) -> None:
        self._word = word

    def opening(self, index: int) -> Json:
        """Return the role."""
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def delta(self, index: int, piece: Piece, offset: int) -> Json:
        """Return the text of one token."""
        del offset
        return {
            "index": index,
            "delta": {"content": piece.text} if piece.text else {},
            "logprobs": _chat_logprobs([piece], self._word),
            "finish_reason": piece.finish,
        }

    def choice(self, index: int, pieces: Sequence[Piece]) -> Json:
        """Return the message."""
        text = "".join(piece.text for piece in pieces)
        return {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": _chat_logprobs(pieces, self._word),
            "finish_reason": pieces[-1].finish,
        }


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """Return what a request used."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _completion(index: int, pieces: Sequence[Piece], offset: int, word: Word) -> Json:
    return {
        "index": index,
        "text": "".join(piece.text for piece in pieces),
        "logprobs": _completion_logprobs(pieces, offset, word),
        "finish_reason": pieces[-1].finish,
    }


def _completion_logprobs(pieces: Sequence[Piece], offset: int, word: Word) -> Json | None:
    if pieces[0].logprob is None:
        return None
    offsets = [offset]
    for piece in pieces[:-1]:
        offsets.append(offsets[-1] + len(piece.text))
    return {
        "tokens": [_text(word(piece.token)) for piece in pieces],
        "token_logprobs": [_finite(piece.logprob) for piece in pieces],
        "top_logprobs": [
            {_text(word(token)): _finite(logprob) for token, logprob in reversed(piece.top)}
            for piece in pieces
        ],
        "text_offset": offsets,
    }


def _chat_logprobs(pieces: Sequence[Piece], word: Word) -> Json | None:
    if pieces[0].logprob is None:
        return None
    content = [
        {
            **_token(word(piece.token), piece.logprob),
            "top_logprobs": [_token(word(token), logprob) for token, logprob in piece.top],
        }
        for piece in pieces
    ]
    return {"content": content, "refusal": None}


def _token(word: bytes, logprob: float | None) -> Json:
    return {"token": _text(word), "logprob": _finite(logprob), "bytes": list(word)}


def _text(word: bytes) -> str:
    return word.decode(errors="replace")


def _finite(logprob: float | None) -> float:
    return max(_LEAST, logprob or 0.0)
