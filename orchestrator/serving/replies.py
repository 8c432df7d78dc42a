"""What is answered: the two response shapes of the OpenAI API, whole and in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from orchestrator.engine import Piece

Json = dict[str, Any]

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

    def opening(self, index: int) -> None:
        """Return nothing: text begins with its first token."""

    def delta(self, index: int, piece: Piece, offset: int) -> Json:
        """Return the text of one token."""
        return _completion(index, [piece], offset)

    def choice(self, index: int, pieces: Sequence[Piece]) -> Json:
        """Return all text."""
        return _completion(index, pieces, 0)


class ChatShape:
    """`/v1/chat/completions`."""

    prefix = "chatcmpl-"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

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
            "logprobs": _chat_logprobs([piece]),
            "finish_reason": piece.finish,
        }

    def choice(self, index: int, pieces: Sequence[Piece]) -> Json:
        """Return the message."""
        text = "".join(piece.text for piece in pieces)
        return {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": _chat_logprobs(pieces),
            "finish_reason": pieces[-1].finish,
        }


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """Return what a request used."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _completion(index: int, pieces: Sequence[Piece], offset: int) -> Json:
    return {
        "index": index,
        "text": "".join(piece.text for piece in pieces),
        "logprobs": _completion_logprobs(pieces, offset),
        "finish_reason": pieces[-1].finish,
    }


def _completion_logprobs(pieces: Sequence[Piece], offset: int) -> Json | None:
    if pieces[0].logprob is None:
        return None
    offsets = [offset]
    for piece in pieces[:-1]:
        offsets.append(offsets[-1] + len(piece.text))
    return {
        "tokens": [piece.token_text for piece in pieces],
        "token_logprobs": [_finite(piece.logprob) for piece in pieces],
        "top_logprobs": [
            {text: _finite(logprob) for text, logprob in reversed(piece.top)} for piece in pieces
        ],
        "text_offset": offsets,
    }


def _chat_logprobs(pieces: Sequence[Piece]) -> Json | None:
    if pieces[0].logprob is None:
        return None
    content = [
        {
            **_token(piece.token_text, piece.logprob),
            "top_logprobs": [_token(text, logprob) for text, logprob in piece.top],
        }
        for piece in pieces
    ]
    return {"content": content, "refusal": None}


def _token(text: str, logprob: float | None) -> Json:
    return {"token": text, "logprob": _finite(logprob), "bytes": list(text.encode())}


def _finite(logprob: float | None) -> float:
    return max(_LEAST, logprob or 0.0)
