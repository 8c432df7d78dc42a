"""A batch that answers join and leave between steps.

Every answer has its own row of the cache. The rows are always 0 to n-1: first those of answers
that are read, which means that the cache holds all their tokens but the last, then the others.
When one leaves, another moves into its place. A step adds a token to each answer that is read,
and then reads a bounded number of tokens of the others. It knows no threads.

What goes wrong with an answer ends that one: a pass that fails is done again for each half of its
rows. Where the cache has no room for all to go on, the last ones pause, and are read again later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from jobs.engines.answer import Answer, TokenSource
from jobs.engines.border import attempt
from jobs.engines.cache import CacheFullError, SlotCache
from jobs.engines.forward import Forward
from jobs.engines.processors import ImpossibleError, processed
from jobs.engines.sampling import ChosenToken, choose
from jobs.engines.scoring import READ_ALONE, score_of
from orchestrator.engine import NotFiniteError, Piece, Prompt

READ_BESIDE = 512  # tokens a step while other answers wait for theirs
SCORED_AT_ONCE = 1 << 24  # scores of a prompt's tokens
SHARED = 16  # tokens that two prompts have in common, so that copying is worth while
AHEAD = 64  # tokens that an answer that joins leaves to the others

Outcome: TypeAlias = Piece | Prompt | Exception
Outcomes: TypeAlias = list[tuple[Answer, Outcome]]


@dataclass(frozen=True, slots=True)
class LoadedWeights(TokenSource):
    """Weights, as the forward pass over them."""

    run: Forward


class Batch:
    """The weights, a cache, and the answers that are being made. For the scheduler's thread alone.

    Args:
        weights: The weights.
        cache: The cache.
        vocabulary: Scores of a token, about.
        trial: Returns what is wrong with the device, by a pass over a plain text.
    """

    def __init__(
        self,
        weights: LoadedWeights,
        cache: SlotCache,
        *,
        vocabulary: int = 1 << 16,
        trial: Callable[[Forward], str] = lambda _: "",
    ) -> None:
        self.answers: list[Answer] = []
        self.weights = weights
        self._cache = cache
        self._scored_at_once = max(1, SCORED_AT_ONCE // vocabulary)
        self._trial = trial
        self._paused: list[Answer] = []
        self._read = 0
        self._outcomes: Outcomes = []

    @property
    def used(self) -> float:
        """The share of the cache's budget that answers take, each as long as the longest."""
        answers = list(self.answers)
        if not self._cache.budget or not answers:
            return 0.0
        return len(answers) * max(len(a.tokens) for a in answers) / self._cache.budget

    def fits(self, joining: Sequence[Answer]) -> bool:
        """Whether the cache has room for these beside those that are there."""
        if self._paused:
            return False
        answers = [*self.answers, *joining]
        if len(answers) < 2 or self._cache.budget is None:  # noqa: PLR2004 - one has room
            return True
        longest = max(min(len(answer.tokens) + AHEAD, answer.end) for answer in answers)
        return len(answers) * longest <= self._cache.budget

    @torch.inference_mode()
    def step(self, joining: Sequence[Answer]) -> Outcomes:
        """Make the next token of all that are read; read on in the others."""
        self._outcomes = []
        self.answers += joining
        while self._paused and (not self.answers or self._has_room(self._paused[0])):
            self.answers.append(self._paused.pop(0))
        self._make_room()
        for answers, scores in self._forward(0, self.answers[: self._read], 1):
            self._choose(answers, scores)
        self._share()
        group, width = self._next_to_read()
        if group and group[0].wants_scores:
            self._read_scored(group[0], width)
        elif group:
            self._read_on(group, width)
        self.leave([answer for answer in self.answers if answer.done])
        return self._outcomes

    @torch.inference_mode()
    def leave(self, answers: Sequence[Answer]) -> None:
        """Free the rows of `answers`."""
        for answer in answers:
            if answer in self._paused:
                self._paused.remove(answer)
            elif answer in self.answers:
                self._free(self.answers.index(answer))
        if not self.answers:
            self._cache.reserve(0, 0)

    def exchange(self, weights: LoadedWeights) -> None:
        """Go on with other weights; all answers are read anew, by these."""
        self.weights = weights
        self._read = 0
        for answer in self.answers:
            answer.forget()

    def clear(self) -> None:
        """Free all rows."""
        self.answers.clear()
        self._paused.clear()
        self._read = 0

    def trouble(self) -> str:
        """Return what is wrong with the device, by a pass over a plain text."""
        return self._trial(self.weights.run)

    def _free(self, row: int) -> None:
        """Free a row; others move into its place."""
        if row < self._read:
            self._read -= 1
            self._move(self._read, row)
            row = self._read
        self._move(len(self.answers) - 1, row)
        self.answers.pop()

    def _fail(self, answer: Answer, error: Exception) -> None:
        """End an answer by an error."""
        answer.done = True
        self._outcomes.append((answer, error))

    def _has_room(self, answer: Answer) -> bool:
        paused, self._paused = self._paused, []
        fits = self.fits([answer])
        self._paused = paused
        return fits

    def _make_room(self) -> None:
        """Have memory for all that the answers hold after this step, or let some pause or fail."""
        while self.answers:
            longest = max(self.answers, key=lambda answer: len(answer.tokens))
            length = len(longest.tokens)
            error = attempt(partial(self._cache.reserve, len(self.answers), length))
            if error is None:
                return
            last = self.answers[-1]
            if isinstance(error, CacheFullError) and len(self.answers) > 1:
                self._free(len(self.answers) - 1)
                last.forget()
                self._paused.insert(0, last)
            else:
                wider = length > self._cache.shape[1]
                self._drop(longest if wider else last, error)

    def _drop(self, answer: Answer, error: Exception) -> None:
        self._fail(answer, RuntimeError(f"a step failed: {error}"))
        self._free(self.answers.index(answer))

    def _share(self) -> None:
        """Copy what prompts have in common with a row that is read, instead of reading it."""
        for row in range(self._read, len(self.answers)):
            answer = self.answers[row]
            if answer.cached or answer.wants_scores or answer.unread <= SHARED:
                continue
            lengths = [_common(donor, answer) for donor in self.answers]
            length = max(lengths)
            if length >= SHARED:
                self._cache.copy(lengths.index(length), row, length)
                answer.cached = length

    def _next_to_read(self) -> tuple[list[Answer], int]:
        """Return answers that are read together, and how many tokens of each, at most.

        A long one is read by itself, in parts; others wholly. One that begins as another does
        waits for it.
        """
        limit = READ_BESIDE if self._read else READ_ALONE
        group: list[Answer] = []
        width = 0
        for answer in self.answers[self._read :]:
            if answer.done:
                break
            wider = max(width, answer.unread)
            alone = answer.wants_scores or any(_twins(answer, other) for other in group)
            if group and (alone or wider * (len(group) + 1) > limit):
                break
            group.append(answer)
            width = wider
            if answer.wants_scores or width > limit:
                break
        return group, min(width, limit)

    def _read_on(self, group: Sequence[Answer], width: int) -> None:
        """Read tokens of prompts; draw the first token of those that are read wholly."""
        over = True
        for answers, scores in self._forward(self._read, group, width):
            over = not answers[0].unread
            self._choose(answers, scores, draw=over)
        if over or group[0].done:
            self._read += len(group)

    def _read_scored(self, answer: Answer, width: int) -> None:
        """Read tokens of a prompt, and note the scores of all of them."""
        width = min(width, self._scored_at_once)
        begin = answer.cached
        for _, scores in self._forward(self._read, [answer], width, every=True):
            if not bool(scores.isfinite().all()):
                self._spoiled(answer)
                return
            known = answer.tokens[begin + 1 : answer.cached + 1]
            top = answer.sampling.prompt_logprobs or 0
            pairs = zip(scores[0], known, strict=False)  # nothing is known after the last one
            answer.scores += [score_of(at, token, top) for at, token in pairs]
            if answer.unread:
                return
            self._outcomes.append((answer, answer.scored(self.weights.version)))
            if not answer.done:
                self._choose([answer], scores[:, -1])
        self._read += 1

    def _forward(
        self, start: int, answers: Sequence[Answer], width: int, *, every: bool = False
    ) -> Iterator[tuple[Sequence[Answer], Tensor]]:
        """Read up to `width` tokens of each row from `start` on; yield the scores after them.

        Of rows whose pass fails each half is tried by itself, down to the one that it fails for.
        """
        if not answers:
            return
        held = [answer.cached for answer in answers]
        new = [answer.tokens[answer.cached : answer.cached + width] for answer in answers]

        def run() -> Tensor:
            self._cache.cover(start, held, max(map(len, new)))
            more = {"every": True} if every else {}
            return self.weights.run(new, self._cache, **more)

        scores = attempt(run)
        if isinstance(scores, Exception):
            if len(answers) == 1:
                self._fail(answers[0], RuntimeError(f"a step failed: {scores}"))
                return
            half = len(answers) // 2
            yield from self._forward(start, answers[:half], width, every=every)
            yield from self._forward(start + half, answers[half:], width, every=every)
            return
        for answer, tokens in zip(answers, new, strict=True):
            answer.cached += len(tokens)
        yield answers, scores

    def _choose(self, answers: Sequence[Answer], scores: Tensor, *, draw: bool = True) -> None:
        """Draw the next tokens of answers, but for those whose scores are no numbers."""
        low, high = scores.aminmax(dim=-1)
        finite = (low.isfinite() & high.isfinite()).tolist()
        if not all(finite):
            for answer, good in zip(answers, finite, strict=True):
                if not good:
                    self._spoiled(answer)
            answers = [answer for answer, good in zip(answers, finite, strict=True) if good]
            scores = scores[finite]
        if draw and answers:
            self._draw(answers, scores)

    def _draw(self, answers: Sequence[Answer], scores: Tensor) -> None:

        def draw() -> list[ChosenToken]:
            shaped = processed(scores, [a.processor for a in answers], self.weights.eos)
            _check_left(shaped)
            return choose(
                shaped, [a.sampling for a in answers], [a.random for a in answers], own=scores
            )

        choices = attempt(draw)
        if isinstance(choices, Exception):
            if len(answers) == 1:
                self._fail(answers[0], _blamed("drawn", choices))
                return
            half = len(answers) // 2
            self._draw(answers[:half], scores[:half])
            self._draw(answers[half:], scores[half:])
            return
        for answer, choice in zip(answers, choices, strict=True):
            piece = attempt(partial(answer.take, choice, self.weights))
            if isinstance(piece, Exception):
                self._fail(answer, _blamed("taken", piece))
            else:
                self._outcomes.append((answer, piece))

    def _spoiled(self, answer: Answer) -> None:
        """End an answer whose scores are no numbers, and clear what it leaves in its row."""
        self._fail(answer, NotFiniteError("the model's scores for this answer are not finite"))
        self._cache.wipe(self.answers.index(answer))

    def _move(self, source: int, target: int) -> None:
        if source == target:
            return
        moved = self.answers[target] = self.answers[source]
        if moved.cached:  # the cache has memory for the rows that it has read, and no others
            self._cache.copy(source, target, moved.cached)


def _check_left(scores: Tensor) -> None:
    if bool((scores.amax(-1) == -torch.inf).any()):
        raise ImpossibleError("biases and grammar leave no token")


def _blamed(what: str, error: Exception) -> Exception:
    """Return the error of one answer: as it is where its request asks for the impossible."""
    if isinstance(error, ImpossibleError):
        return error
    return RuntimeError(f"a token can't be {what}: {error}")


def _common(donor: Answer, answer: Answer) -> int:
    """Return how many tokens a donor's row holds that the other answer begins with."""
    most = min(donor.cached, len(answer.tokens) - 1)
    if donor is answer or donor.done or most < SHARED:
        return 0
    if donor.tokens[:SHARED] != answer.tokens[:SHARED]:
        return 0
    low, high = SHARED, most
    while low < high:
        middle = (low + high + 1) // 2
        if donor.tokens[:middle] == answer.tokens[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _twins(answer: Answer, other: Answer) -> bool:
    """Whether two answers that nothing is read of begin alike."""
    return (
        not answer.cached
        and not other.cached
        and len(answer.tokens) > SHARED
        and answer.tokens == other.tokens
    )
