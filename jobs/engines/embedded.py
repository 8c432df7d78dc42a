"""An engine in this process: continuous batching over any causal language model of transformers.

Weights are safetensors only. It computes on one chip.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import torch

from jobs.engines import fast_forward, probe
from jobs.engines.answer import Answer
from jobs.engines.batch import Batch, LoadedWeights
from jobs.engines.cache import SlotCache, windows_of
from jobs.engines.cache_budget import budget, free_bytes
from jobs.engines.constrained import Grammars
from jobs.engines.forward import Forward, ModelForward
from jobs.engines.generation_config import defaults_of
from jobs.engines.model_tokenizer import Tokenizer
from jobs.engines.routing import by_token, recorded
from jobs.engines.scheduler import PATIENCE, Scheduler
from jobs.engines.scoring import check_text, follow
from jobs.engines.type_limits import check_type, context_of, vocabulary_of
from jobs.engines.weights import changed, check_alike, check_tokenizer, load, shape, types
from jobs.parity.weight_norms import norms, plain
from orchestrator.engine import Piece, Prompt, Sampling, Score
from orchestrator.job import Hardware

logger = logging.getLogger(__name__)

_SMALL = 20_000_000


class EmbeddedEngine:
    """Satisfies `orchestrator.engine.Engine`.

    Args:
        model_folder: A Hugging Face folder: config, safetensors, tokenizer.
        hardware: What to run on.
        version: Names the weights; by default the folder's name.
        slots: Answers that are made at once; further ones wait.
        max_context: Limit on prompt and answer together; the model's own where that is less.
        dtype: torch type of the weights; `auto` takes the type in which they were saved, or
            float32 on a CPU that has no arithmetic for that.
        threads: torch threads on a CPU; by default 1 for a small model, else one a core.
        fast_forward: Whether to use our own forward pass where there is one for the architecture.
        cache_tokens: Tokens that the key-value cache may hold, the padding of shorter answers
            included; by default what all slots can have, or what half of the free memory holds.
        cache_gb: The same in GiB.
        patience: Seconds that a step may take before the engine counts as hanging.

    Attributes:
        types: The format in which the weights are `stored`, and the type that is `computed` in.

    Raises:
        ValueError: The folder is no model that this engine can run, or answers wrongly.
        OSError: The tokenizer can't be read.
    """

    def __init__(  # noqa: PLR0913 - the options of an endpoint's config
        self,
        model_folder: Path,
        hardware: Hardware,
        *,
        version: str | None = None,
        slots: int = 32,
        max_context: int = 4096,
        dtype: str = "auto",
        threads: int | None = None,
        fast_forward: bool = True,
        cache_tokens: int | None = None,
        cache_gb: float | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._folder, self._device, self._fast = model_folder, hardware.device, fast_forward
        model = load(model_folder, dtype, self._device)
        self._model = model
        self._tokenizer = Tokenizer(model_folder)
        check_type(model.config)
        self.max_context = min(context_of(model.config), max_context)
        self.vocabulary = vocabulary_of(model.config)
        self.longest_token = self._tokenizer.bytes.longest
        self.types = types(model_folder, model)
        self.defaults = defaults_of(model_folder)
        self._windows = windows_of(model.config, self.max_context)
        if self.max_context < probe.LENGTH:
            raise ValueError(
                f"max_context={self.max_context!r} is too few: an engine is proven on a prompt of "
                f"{probe.LENGTH} tokens"
            )
        cache = self._cache()
        weights = self._proven(model, model_folder.name if version is None else version, cache)
        free = free_bytes(self._device)
        wanted = slots * self.max_context
        cache.budget = budget(cache.cell, wanted, free, tokens=cache_tokens, gb=cache_gb)
        self._limit_context(cache.budget)
        self._batch = Batch(weights, cache, vocabulary=self.vocabulary, trial=self._trial)
        self._grammars = Grammars(self._tokenizer.foreign, self.vocabulary, weights.eos)
        self._updating = threading.Lock()
        torch_threads = threads or _threads_for(model)
        self._scheduler = Scheduler(
            self._batch, slots, lambda: torch.set_num_threads(torch_threads), patience=patience
        )

    @property
    def active(self) -> int:
        """Number of slots that are taken."""
        return len(self._batch.answers)

    @property
    def version(self) -> str:
        """Name of the weights that serve now."""
        return self._batch.weights.version

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return the token ids of a prompt, with the special tokens that the model expects.

        Raises:
            ValueError: No context holds so long a text.
        """
        self._tokenizer.check_length(len(text), self.max_context)
        return self._tokenizer.encode(text, special=special)

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> list[int]:
        """Return the token ids of a chat, up to where the answer begins."""
        length = sum(len(str(message.get("content") or "")) for message in messages)
        self._tokenizer.check_length(length, self.max_context)
        text = self._tokenizer.render(messages, variables)
        return self.encode(text, special=False)  # the template has those that the model expects

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`, special ones included."""
        return self._tokenizer.decode(tokens, special=True)

    def token_bytes(self, token: int) -> bytes:
        """Return what a token stands for; it may be a part of a character."""
        return self._tokenizer.bytes[token]

    async def generate(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Prompt | Piece, None]:
        """Yield the answer, token by token. Closing it frees its slot at the next step."""
        self._check(prompt, sampling)
        constraint = None
        if sampling.grammar is not None:
            constraint = await asyncio.to_thread(self._grammars.compile, sampling.grammar)
        tokenizer = self._tokenizer
        read = tokenizer.bytes.__getitem__ if tokenizer.bytes.exact else None
        answer = Answer(prompt, sampling, tokenizer.decode, read, constraint)
        async with aclosing(self._scheduler.generate(answer)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    def score(self, tokens: Sequence[int], begin: int, top: int) -> Sequence[Score]:
        """Return a score for each token from place `begin` on, as `Scorer` says."""
        check_text(tokens, begin, self.max_context)
        self._check_tokens(tokens)
        scores: list[Score] = []

        def act() -> None:
            run, beat = self._batch.weights.run, self._scheduler.beat
            scores.extend(follow(run, self._cache(), tokens, begin, top, beat))

        self._scheduler.between_steps(act)
        return scores

    def norms(self) -> Mapping[str, Sequence[Sequence[float]]]:
        """Return the norms of the blocks of the weights that serve, as `Inspector` says."""
        return plain(norms(self._model))

    def experts(self, tokens: Sequence[int], begin: int) -> Sequence[Sequence[Sequence[int]]]:
        """Return which experts are chosen for each token from `begin` on; see `Inspector`."""
        check_text(tokens, begin, self.max_context)
        self._check_tokens(tokens)
        choices: list[torch.Tensor] = []

        @torch.inference_mode()
        def act() -> None:
            cache = self._cache()
            cache.cover(0, [0], len(tokens) - 1)
            with recorded(self._model) as recording:
                self._batch.weights.run([tokens[:-1]], cache)
            choices.extend(recording)

        self._scheduler.between_steps(act)
        chosen = by_token(choices, rows=1)
        experts: list[list[list[int]]] = [] if chosen is None else chosen[0, begin - 1 :].tolist()
        return experts

    def statistics(self) -> Mapping[str, float]:
        """Return how busy the engine is; of the cache, what answers keep others from."""
        return {**self._scheduler.statistics(), "cache_used": self._batch.used}

    def health(self) -> str:
        """Return why it can't serve: closed, broken, hanging, or failing at whatever it does."""
        return self._scheduler.health()

    def update(self, folder: Path, version: str, base: str | None = None) -> None:
        """Serve other weights from now on; the tokenizer stays the first one.

        They are made and proven beside those that serve: for a moment two are in memory.
        """
        with self._updating:
            if base is not None and base != self.version:
                raise ValueError(f"version {self.version!r} serves, not {base!r}")
            if base is None:
                check_tokenizer(folder, self._folder)
                model = load(folder, self._model.dtype, self._device)
                check_alike(folder, shape(model), shape(self._model))
            else:
                model = changed(self._model, folder)
            weights = self._proven(model, version, self._cache())
            self._scheduler.between_steps(lambda: self._batch.exchange(weights))
            self._model = model
            self.types = types(folder, model) if base is None else self.types

    def close(self) -> None:
        """End the thread; answers that are being made end by an error. Safe to call twice."""
        self._scheduler.close()
        self._grammars.close()

    def _check(self, prompt: Sequence[int], sampling: Sampling) -> None:
        """Refuse what this engine can't do.

        Raises:
            ValueError: The request asks for more than there is.
        """
        self._check_tokens(prompt)
        self._check_tokens((*sampling.logit_bias, *sampling.stop_token_ids))
        if not sampling.max_tokens and sampling.prompt_logprobs is None:
            raise ValueError("max_tokens=0 makes sense with prompt_logprobs alone")
        length = len(prompt) + sampling.max_tokens
        if length > self.max_context:
            raise ValueError(
                f"{len(prompt)} tokens of prompt and {sampling.max_tokens} of answer are more "
                f"than max_context={self.max_context}"
            )

    def _check_tokens(self, tokens: Sequence[int]) -> None:
        strange = [token for token in tokens if not 0 <= token < self.vocabulary]
        if strange:
            raise ValueError(
                f"the model has no row for token {strange[0]}"
                f"{self._tokenizer.named(strange[0])}: its vocabulary has {self.vocabulary} tokens"
            )

    def _limit_context(self, tokens: int) -> None:
        """Take no request that the cache can never hold."""
        if tokens < self.max_context:
            logger.warning(
                "the cache holds %d tokens, so max_context is not %d", tokens, self.max_context
            )
            self.max_context = tokens

    def _trial(self, run: Forward) -> str:
        return probe.alive(run, self._cache(), self.vocabulary)

    def _proven(self, model: Any, version: str, cache: SlotCache) -> LoadedWeights:  # noqa: ANN401 - foreign and untyped
        """Return the weights of `model`, when they answer as its own forward pass does."""
        fast = self._fast and fast_forward.fits(model)
        run: Forward = (
            fast_forward.FastForward(model, self.max_context) if fast else ModelForward(model)
        )
        probe.check(model, run, cache)
        ends = self._tokenizer.ends(model.generation_config, self.vocabulary)
        return LoadedWeights(version, ends, run)

    def _cache(self) -> SlotCache:
        return SlotCache(self._windows, self.max_context, torch.device(self._device))


def _threads_for(model: Any) -> int:  # noqa: ANN401 - foreign and untyped
    if sum(weight.numel() for weight in model.parameters()) <= _SMALL:
        return 1
    return os.cpu_count() or 1
