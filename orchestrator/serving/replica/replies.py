"""What is answered: the two response shapes of the OpenAI API, whole and in chunks."""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from orchestrator.engine import Piece, Prompt, Sampling
from orchestrator.serving.replica import tool_calls
from orchestrator.serving.replica.tool_calls import Reader

Json = dict[str, Any]
Word: TypeAlias = Callable[[int], bytes]  # what a token stands for
Scored: TypeAlias = "tuple[int, float | None, Sequence[tuple[int, float]]]"

_LEAST = -9999.0  # what OpenAI writes for a probability of nothing: JSON has no infinity


@dataclass(frozen=True, slots=True)
class Choice:
    """What the engine is asked for one choice; `text` is the prompt's, where that is echoed."""

    prompt: Sequence[int]
    sampling: Sampling
    text: str = ""


@dataclass(slots=True)
class ChoiceAnswer:
    """What came of a choice."""

    choice: Choice
    prompt: Prompt | None = None
    pieces: list[Piece] = field(default_factory=list)

    @property
    def finish(self) -> str | None:
        """Why it ended; one of no tokens has all it may have."""
        return self.pieces[-1].finish if self.pieces else "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What a request says of the shape of its answer.

    Attributes:
        word: What a token stands for.
        logprobs: Likeliest tokens a position of the answer, and of an echo.
        prompt_logprobs: The same of the prompt, in vLLM's shape.
        echo: Whether the prompt stands before the answer.
        token_ids: Whether the ids of tokens are told.
        as_ids: Whether tokens are named by their ids.
        chosen: Which tools the answer may or must call.
    """

    word: Word
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    echo: bool = False
    token_ids: bool = False
    as_ids: bool = False
    chosen: str = "none"

    def name(self, token: int) -> str:
        """Return how a token is written; a part of a character is written as its bytes."""
        if self.as_ids:
            return f"token_id:{token}"
        word = self.word(token)
        try:
            return word.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in word)


class ChoiceShape(Protocol):
    """How the API writes choices; made anew for each request."""

    prefix: str
    whole: str
    chunk: str

    def opening(self, index: int, choice: Choice) -> Json | None:
        """Return the first choice of a stream, before any token."""
        ...

    def prompt(self, index: int, choice: Choice, prompt: Prompt) -> Json | None:
        """Return a choice of a chunk about the prompt."""
        ...

    def delta(self, index: int, piece: Piece) -> Json | None:
        """Return a choice of a chunk; nothing where there is nothing to tell."""
        ...

    def choice(self, index: int, answer: ChoiceAnswer) -> Json:
        """Return a whole choice."""
        ...

    def beside(self, answers: Sequence[ChoiceAnswer]) -> Json:
        """Return what a whole answer has beside its choices."""
        ...


class CompletionShape:
    """`/v1/completions`."""

    prefix = "cmpl-"
    whole = chunk = "text_completion"

    def __init__(self, style: Style) -> None:
        self._style = style
        self._sent: defaultdict[int, int] = defaultdict(int)

    def opening(self, index: int, choice: Choice) -> Json | None:
        """Return the prompt where it is echoed without its log-probabilities."""
        style = self._style
        if not (style.echo and style.logprobs is None) and not style.token_ids:
            return None
        text = choice.text if style.logprobs is None else ""
        self._sent[index] = len(text)
        opening = self._choice(index, text, None, None, None)
        if style.token_ids:
            opening |= {"prompt_token_ids": list(choice.prompt), "token_ids": []}
        return opening

    def prompt(self, index: int, choice: Choice, prompt: Prompt) -> Json | None:
        """Return the prompt with its log-probabilities, where it is echoed with them."""
        finish = None if choice.sampling.max_tokens else "length"
        if not (self._style.echo and self._style.logprobs is not None):
            return self._choice(index, "", None, finish, None) if finish else None
        self._sent[index] = len(choice.text)
        scored = self._scored(_of_prompt(choice, prompt), self._offsets(choice))
        return self._choice(index, choice.text, scored, finish, None)

    def delta(self, index: int, piece: Piece) -> Json | None:
        """Return the text of one token."""
        offset = self._sent[index]
        self._sent[index] += len(piece.text)
        logprobs = self._scored([_of_piece(piece)], [offset])
        if not (piece.text or piece.finish or logprobs or self._style.token_ids):
            return None
        delta = self._choice(index, piece.text, logprobs, piece.finish, piece.stopped_by)
        return {**delta, "token_ids": [piece.token]} if self._style.token_ids else delta

    def choice(self, index: int, answer: ChoiceAnswer) -> Json:
        """Return all text."""
        asked, pieces, style = answer.choice, answer.pieces, self._style
        before = asked.text if style.echo else ""
        offsets = self._offsets(asked) if style.echo else []
        scored = list(_of_prompt(asked, answer.prompt)) if style.echo else []
        at = len(before)
        for piece in pieces:
            offsets.append(at)
            scored.append(_of_piece(piece))
            at += len(piece.text)
        text = before + "".join(piece.text for piece in pieces)
        logprobs = self._scored(scored, offsets)
        stopped = pieces[-1].stopped_by if pieces else None
        choice = self._choice(index, text, logprobs, answer.finish, stopped)
        if style.prompt_logprobs is not None and answer.prompt is not None:
            choice["prompt_logprobs"] = _prompt_logprobs(style, asked, answer.prompt)
        if style.token_ids:
            choice["prompt_token_ids"] = list(asked.prompt)
            choice["token_ids"] = [piece.token for piece in pieces]
        return choice

    def beside(self, answers: Sequence[ChoiceAnswer]) -> Json:
        """Return nothing: all is in the choices."""
        del answers
        return {}

    def _offsets(self, choice: Choice) -> list[int]:
        """Return where in the text the tokens of a prompt begin."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        offsets, at = [], 0
        for token in choice.prompt:
            offsets.append(at)
            at += len(decoder.decode(self._style.word(token)))
        return offsets

    def _scored(self, scored: Iterable[Scored], offsets: Sequence[int]) -> Json | None:
        """Return log-probabilities in the shape of completions."""
        style = self._style
        if style.logprobs is None:
            return None
        tokens, logprobs, tops = [], [], []
        for token, logprob, top in scored:
            tokens.append(style.name(token))
            logprobs.append(None if logprob is None else _finite(logprob))
            likely = [*top[: style.logprobs], (token, logprob)] if style.logprobs else []
            named = {style.name(other): _finite(log) for other, log in likely}
            tops.append(None if logprob is None else named)
        names = {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops}
        return {**names, "text_offset": list(offsets)}

    def _choice(
        self,
        index: int,
        text: str,
        logprobs: Json | None,
        finish: str | None,
        stopped: str | int | None,
    ) -> Json:
        choice = {"index": index, "text": text, "logprobs": logprobs}
        return {**choice, "finish_reason": finish, "stop_reason": stopped}


class ChatShape:
    """`/v1/chat/completions`."""

    prefix = "chatcmpl-"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def __init__(self, style: Style) -> None:
        self._style = style
        self._readers: dict[int, Reader] = {}

    def opening(self, index: int, choice: Choice) -> Json:
        """Return the role."""
        delta = {"role": "assistant", "content": ""}
        opening = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        if self._style.token_ids:
            opening |= {"prompt_token_ids": list(choice.prompt), "token_ids": []}
        return opening

    def prompt(self, index: int, choice: Choice, prompt: Prompt) -> Json | None:
        """Return nothing: a stream of a chat tells nothing of its prompt."""
        del index, choice, prompt
        return None

    def delta(self, index: int, piece: Piece) -> Json | None:
        """Return what one token adds to the text and the calls."""
        reader = self._reader(index)
        text, calls = reader.add(piece.text, last=piece.finish is not None)
        delta: Json = {"content": text} if text else {}
        if calls:
            delta["tool_calls"] = calls
        logprobs = self._logprobs([piece])
        if not (delta or piece.finish or logprobs or self._style.token_ids):
            return None
        whole = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": _finish(piece.finish, reader),
            "stop_reason": piece.stopped_by,
        }
        return {**whole, "token_ids": [piece.token]} if self._style.token_ids else whole

    def choice(self, index: int, answer: ChoiceAnswer) -> Json:
        """Return the message."""
        reader = self._reader(index)
        written = "".join(piece.text for piece in answer.pieces)
        text, deltas = reader.add(written, last=True)
        calls = tool_calls.joined(deltas)
        content = text if text or not calls else None
        message: Json = {"role": "assistant", "content": content, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        choice = {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(answer.pieces),
            "finish_reason": _finish(answer.finish, reader),
            "stop_reason": answer.pieces[-1].stopped_by,
        }
        if self._style.token_ids:
            choice["token_ids"] = [piece.token for piece in answer.pieces]
        return choice

    def beside(self, answers: Sequence[ChoiceAnswer]) -> Json:
        """Return what is told of the prompt."""
        style, first = self._style, answers[0]
        beside: Json = {}
        if style.prompt_logprobs is not None and first.prompt is not None:
            beside["prompt_logprobs"] = _prompt_logprobs(style, first.choice, first.prompt)
        if style.token_ids:
            beside["prompt_token_ids"] = list(first.choice.prompt)
        return beside

    def _reader(self, index: int) -> Reader:
        reader = self._readers.get(index)
        if reader is None:
            reader = self._readers[index] = tool_calls.reader(self._style.chosen)
        return reader

    def _logprobs(self, pieces: Sequence[Piece]) -> Json | None:
        count = self._style.logprobs
        if count is None:
            return None
        content = [
            {
                **self._token(piece.token, piece.logprob),
                "top_logprobs": [self._token(*likely) for likely in piece.top[:count]],
            }
            for piece in pieces
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float | None) -> Json:
        word = list(self._style.word(token))
        return {"token": self._style.name(token), "logprob": _finite(logprob), "bytes": word}


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """Return what a request used."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def _finish(finish: str | None, reader: Reader) -> str | None:
    return reader.finish if finish == "stop" else finish


def _of_piece(piece: Piece) -> Scored:
    return piece.token, piece.logprob or 0.0, piece.top


def _of_prompt(choice: Choice, prompt: Prompt | None) -> Iterable[Scored]:
    """Yield the prompt's tokens with their scores, none for the first."""
    scores = prompt.scores if prompt is not None else ()
    for token, score in zip(choice.prompt, scores, strict=False):
        if score is None:
            yield token, None, ()
        else:
            top = list(zip(score.top, score.logprobs, strict=True))
            yield token, score.logprob, top


def _prompt_logprobs(
    style: Style, choice: Choice, prompt: Prompt
) -> list[Mapping[str, Json] | None]:
    """Return them in vLLM's shape: by id, the token itself and the likeliest ones."""
    logprobs: list[Mapping[str, Json] | None] = []
    for token, logprob, top in _of_prompt(choice, prompt):
        if logprob is None:
            logprobs.append(None)
            continue
        likely = list(top)[: style.prompt_logprobs]
        ranks = {other: rank for rank, (other, _) in enumerate(likely, 1)}
        scores = {token: logprob, **dict(likely)}
        logprobs.append(
            {
                str(other): {
                    "logprob": _finite(log),
                    "rank": ranks.get(other),
                    "decoded_token": style.name(other),
                }
                for other, log in scores.items()
            }
        )
    return logprobs


def _finite(logprob: float | None) -> float:
    return max(_LEAST, logprob or 0.0)
