"""Whatever joins, leaves, fails and is updated: each request gets its own tokens, as if alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from transformers import LlamaConfig, LlamaForCausalLM

from jobs.engines.answer import Answer
from jobs.engines.batch import Batch, LoadedWeights
from jobs.engines.cache import SlotCache, windows_of
from jobs.engines.fast_forward import FastForward
from orchestrator.engine import NotFiniteError, Piece, Sampling

VOCABULARY = 61
POISON, FAULT = 59, 60
CONTEXT = 96
BUDGET = 200


def made(seed: int) -> Any:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            initializer_range=0.3,
        )
    ).eval()


MODELS = [made(seed) for seed in (1, 2)]
PASSES = [FastForward(model, CONTEXT) for model in MODELS]


@dataclass
class Asked:
    answer: Answer
    prompt: list[int]
    pieces: list[Piece]
    error: Exception | None = None


def faulty(number: int) -> Any:
    """Return a pass that spoils rows with one token, and fails for rows with another."""

    def run(new: Sequence[Sequence[int]], cache: SlotCache, **more: bool) -> torch.Tensor:
        if any(FAULT in tokens for tokens in new):
            raise RuntimeError("a fault")
        scores = PASSES[number](new, cache, **more)
        scores[..., FAULT] = scores[..., POISON] = -50.0
        for row, tokens in enumerate(new):
            if POISON in tokens:
                scores[row] = torch.nan
                for layer in cache.layers:
                    for buffer in layer.buffers:
                        buffer[cache.span.start + row] = torch.nan
        return scores

    return run


class Interleaving(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        windows = windows_of(MODELS[0].config, CONTEXT)
        cache = SlotCache(windows, CONTEXT, torch.device("cpu"), BUDGET)
        self.batch = Batch(LoadedWeights("0", frozenset(), faulty(0)), cache)
        self.waiting: list[Asked] = []
        self.running: list[Asked] = []
        self.over: list[Asked] = []

    @rule(
        prompt=st.lists(st.integers(0, 58), min_size=1, max_size=40),
        tokens=st.integers(1, 30),
        bad=st.sampled_from([None, None, None, POISON, FAULT]),
        times=st.sampled_from([1, 1, 3]),
    )
    def ask(self, prompt: list[int], tokens: int, bad: int | None, times: int) -> None:
        prompt = [*prompt, *([bad] if bad else [])]
        for _ in range(times):
            sampling = Sampling(max_tokens=tokens, temperature=0)
            answer = Answer(prompt, sampling, lambda _: "")
            self.waiting.append(Asked(answer, prompt, []))

    @rule(times=st.integers(1, 5))
    def step(self, times: int) -> None:
        for _ in range(times):
            joining: list[Asked] = []
            while self.waiting and self.batch.fits(
                [*(asked.answer for asked in joining), self.waiting[0].answer]
            ):
                joining.append(self.waiting.pop(0))
            self.running += joining
            by_answer = {id(asked.answer): asked for asked in self.running}
            for answer, outcome in self.batch.step([asked.answer for asked in joining]):
                asked = by_answer[id(answer)]
                if isinstance(outcome, Piece):
                    asked.pieces.append(outcome)
                else:
                    assert isinstance(outcome, Exception)
                    asked.error = outcome
            self.over += [asked for asked in self.running if asked.answer.done]
            self.running = [asked for asked in self.running if not asked.answer.done]

    @rule(dice=st.randoms(use_true_random=False))
    def leave(self, dice: Any) -> None:
        if self.running:
            gone = dice.choice(self.running)
            self.batch.leave([gone.answer])
            self.running.remove(gone)

    @rule(number=st.sampled_from([0, 1]))
    def update(self, number: int) -> None:
        self.batch.exchange(LoadedWeights(str(number), frozenset(), faulty(number)))

    @invariant()
    def the_cache_keeps_to_its_budget(self) -> None:
        rows, capacity = self.batch._cache.shape
        assert rows * capacity <= BUDGET

    def teardown(self) -> None:
        for _ in range(3000):
            if not (self.waiting or self.running):
                break
            self.step(1)
        assert not self.waiting
        assert not self.running
        for asked in self.over:
            if FAULT in asked.prompt:
                assert str(asked.error) == "a step failed: a fault"
            elif POISON in asked.prompt:
                assert isinstance(asked.error, NotFiniteError)
            else:
                assert asked.error is None
                assert len(asked.pieces) == asked.answer.sampling.max_tokens
                check_alone(asked)


@torch.inference_mode()
def check_alone(asked: Asked) -> None:
    """Check each token against the weights that its piece names, by transformers' forward."""
    tokens = asked.prompt + [piece.token for piece in asked.pieces]
    for version in {piece.version for piece in asked.pieces}:
        scores = MODELS[int(version)](torch.tensor([tokens])).logits[0]
        scores[:, FAULT] = scores[:, POISON] = -50.0
        for place, piece in enumerate(asked.pieces, len(asked.prompt) - 1):
            if piece.version == version:
                best = float(scores[place].max())
                assert float(scores[place, piece.token]) > best - 1e-3, "a tie, at most"


Interleaving.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestInterleaving = Interleaving.TestCase
