"""The batch, over a pass that shows what it reads: the next token is the sum of all before."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from jobs.engines.answer import Answer
from jobs.engines.batch import READ_BESIDE, Batch, LoadedWeights, Outcome
from jobs.engines.cache import SlotCache
from jobs.engines.scoring import READ_ALONE
from orchestrator.engine import Sampling

VOCABULARY = 997


class Sums:
    """A pass, and the layer of the cache in which it keeps its rows."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.reads: list[list[int]] = []

    def __call__(self, new: Sequence[Sequence[int]], cache: SlotCache) -> torch.Tensor:
        span = cache.span
        self.reads.append([len(tokens) for tokens in new])
        self.rows += [[] for _ in range(span.stop - len(self.rows))]
        wanted = []
        for number, tokens in enumerate(new):
            row = self.rows[span.start + number]
            begin = int(span.positions[number, 0])
            row[begin:] = tokens
            wanted.append(sum(row) % VOCABULARY)
        return torch.nn.functional.one_hot(torch.tensor(wanted), VOCABULARY).float()

    def copy(self, source: int, target: int, length: int) -> None:
        self.rows += [[] for _ in range(target + 1 - len(self.rows))]
        self.rows[target] = self.rows[source][:length]

    def wipe(self, row: int) -> None:
        self.rows[row] = []

    cell = 0

    def resized(self, *_: object) -> list[torch.Tensor]:
        return []

    def take(self, _: object) -> None:
        pass


def batch() -> tuple[Batch, Sums]:
    sums = Sums()
    cache = SlotCache([], 1 << 15, torch.device("cpu"))
    cache.layers.append(sums)  # type: ignore[arg-type]
    return Batch(LoadedWeights("v1", frozenset(), sums), cache), sums


def answer(prompt: list[int], tokens: int = 10) -> Answer:
    return Answer(prompt, Sampling(max_tokens=tokens, temperature=0), lambda _: "")


def expected(prompt: list[int], tokens: int) -> list[int]:
    made = list(prompt)
    for _ in range(tokens):
        made.append(sum(made) % VOCABULARY)
    return made


def told(pieces: list[tuple[Answer, Outcome]], wanted: Answer) -> int:
    return sum(each is wanted for each, _ in pieces)


def test_a_long_prompt_is_read_in_parts_between_which_others_get_their_tokens() -> None:
    made, sums = batch()
    first, long = answer([1, 2, 3], 100), answer(list(range(3000)), 5)
    made.step([first])
    assert told(made.step([long]), first) == 1
    while long.unread > 1:
        assert told(made.step([]), first) == 1
    assert max(map(max, sums.reads)) == READ_BESIDE
    assert long.tokens == expected(list(range(3000)), len(long.tokens) - 3000)


def test_prompts_are_read_together_up_to_a_bound() -> None:
    made, sums = batch()
    made.step([answer([n] * 100) for n in range(8)])
    assert sums.reads == [[100] * 8]
    made.step([answer([n] * 100) for n in range(8, 16)])
    made.step([])
    assert sums.reads[1:] == [[1] * 8, [100] * 5, [1] * 13, [100] * 3]


def test_a_prompt_that_nobody_waits_for_is_read_in_larger_parts() -> None:
    made, sums = batch()
    long = answer([1] * (2 * READ_ALONE + 904), 1)
    while not long.done:
        made.step([long] if not made.answers else [])
    assert sums.reads == [[READ_ALONE], [READ_ALONE], [904]]


def test_an_answer_that_leaves_frees_its_row_before_the_next_step() -> None:
    made, sums = batch()
    leaving, staying = answer([5] * 4, 100), answer([6] * 4, 100)
    made.step([leaving, staying])
    made.leave([leaving])
    made.step([])
    assert sums.reads == [[4, 4], [1]]
    assert made.answers == [staying]


def test_an_answer_that_is_not_read_yet_takes_the_place_of_one_that_ends_at_once() -> None:
    made, _ = batch()
    first, second, third = (answer([n] * READ_ALONE, tokens=1) for n in (1, 2, 3))
    made.step([first, second, third])
    assert first.done
    assert made.answers == [third, second]
    while made.answers:
        made.step([])
    assert third.tokens == expected([3] * READ_ALONE, 1)


def test_answers_that_come_and_go_at_random_are_right_in_the_end() -> None:
    rolls = random.Random(7)  # noqa: S311 - a test's dice
    made, _ = batch()
    begun: list[tuple[list[int], Answer]] = []
    for step in range(300):
        joining = []
        for _ in range(rolls.choice([0, 0, 1, 3]) if len(made.answers) < 20 else 0):
            prompt = [rolls.randrange(50) for _ in range(rolls.choice([1, 5, 60, 700]))]
            joining.append(answer(prompt, rolls.randint(1, 30)))
            begun.append((prompt, joining[-1]))
        made.step(joining)
        if made.answers and rolls.random() < 0.3:
            made.leave([rolls.choice(made.answers)])
        if step % 50 == 49:
            made.exchange(made.weights)
    assert sum(each.done for _, each in begun) > 50
    for prompt, each in begun:
        assert each.tokens == expected(prompt, len(each.tokens) - len(prompt))
