"""An engine in this process: continuous batching over any causal language model of transformers.

One thread owns the model and steps the batch; answers join and leave between steps. Requests come
from event loops of any other thread, and get their pieces there. Weights are safetensors only.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jinja2
import torch
from transformers import AutoTokenizer

from jobs.engines import lean, probe
from jobs.engines.batch import Answer, Batch, Weights
from jobs.engines.cache import SlotCache, fitting_context
from jobs.engines.delivery import Request, deliver
from jobs.engines.passes import ModelPass, Pass
from jobs.engines.weights import check_alike, check_tokenizer, load
from orchestrator.job import Hardware, Piece, Sampling

_SMALL = 20_000_000


class EmbeddedEngine:
    """Satisfies `orchestrator.job.Engine`.

    Args:
        model_folder: A Hugging Face folder: config, safetensors, tokenizer.
        hardware: What to run on.
        version: Names the weights; by default the folder's name.
        slots: Answers that are made at once; further ones wait.
        max_context: Limit on prompt and answer together; the model's own where that is less.
        dtype: torch type of the weights; `auto` takes the type in which they were saved, or
            float32 on a CPU that has no arithmetic for that.
        threads: torch threads on a CPU; by default 1 for a small model, else one a core.
        lean: Whether to use our own forward pass where there is one for the architecture.

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
        lean: bool = True,
    ) -> None:
        self._folder, self._device, self._lean = model_folder, hardware.device, lean
        model = load(model_folder, dtype, self._device)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(
            str(model_folder), local_files_only=True
        )
        self._words: Any = getattr(self._tokenizer, "backend_tokenizer", None)
        own = getattr(model.config, "max_position_embeddings", max_context)
        self._layers, self.max_context = fitting_context(model.config, min(own, max_context))
        self.vocabulary = int(model.config.vocab_size)
        self._model = model
        weights = self._proven(model, model_folder.name if version is None else version)
        self._batch = Batch(weights, self._cache())
        self._slots = slots
        self._torch_threads = threads or _threads_for(model)
        self._made = 0
        self._waiting: deque[Request] = deque()
        self._wake = threading.Condition()
        self._swapping = threading.Lock()
        self._next: tuple[Weights, Future[None]] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    @property
    def active(self) -> int:
        """Number of slots that are taken."""
        return len(self._batch.answers)

    @property
    def version(self) -> str:
        """Name of the weights that serve now."""
        return self._batch.weights.version

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a prompt, with the special tokens that the model expects."""
        ids: list[int] = self._tokenizer(text)["input_ids"]
        return ids

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the token ids of a chat, up to where the answer begins."""
        if not self._tokenizer.chat_template:
            raise ValueError("this model has no chat template; ask /v1/completions instead")
        try:
            ids: list[int] = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                add_generation_prompt=True,
                return_dict=False,
            )
        except jinja2.TemplateError as error:
            raise ValueError(f"the chat template refuses these messages: {error}") from error
        return ids

    async def generate(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Piece, None]:
        """Yield the answer, token by token. Closing it frees its slot at the next step."""
        request = Request(Answer(prompt, sampling, self._decode))
        self._submit(request)
        try:
            while True:
                piece = await request.pieces.get()
                if isinstance(piece, RuntimeError):
                    raise piece
                yield piece
                if piece.finish:
                    return
        finally:
            request.left = True

    def statistics(self) -> Mapping[str, float]:
        """Return how busy the engine is; the cache counts as what all slots could hold."""
        answers = list(self._batch.answers)
        held = sum(answer.held for answer in answers)
        return {
            "running": len(answers),
            "waiting": len(self._waiting),
            "tokens": self._made,
            "cache_used": held / (self._slots * self.max_context),
        }

    def swap(self, model_folder: Path, version: str) -> None:
        """Serve the weights of another folder from now on; its tokenizer stays the first one.

        They are loaded and proven beside those that serve: for a moment two are in memory.
        """
        with self._swapping:
            check_tokenizer(model_folder, self._folder)
            model = load(model_folder, self._model.dtype, self._device)
            check_alike(model_folder, model, self._model)
            done: Future[None] = Future()
            following = (self._proven(model, version), done)
            with self._wake:
                self._check_open()
                self._next = following
                self._wake.notify()
            done.result()
            self._model = model

    def close(self) -> None:
        """End the thread; answers that are being made end by an error. Safe to call twice."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _proven(self, model: Any, version: str) -> Weights:  # noqa: ANN401 - foreign and untyped
        """Return the weights of `model`, when they answer as its own forward pass does."""
        ours = self._lean and lean.fits(model)
        run: Pass = lean.LeanPass(model, self.max_context) if ours else ModelPass(model)
        probe.check(model, run, self._cache())
        return Weights(run, version, self._end_tokens(model))

    def _cache(self) -> SlotCache:
        return SlotCache(self._layers, self.max_context, torch.device(self._device))

    def _submit(self, request: Request) -> None:
        with self._wake:
            self._check_open()
            self._waiting.append(request)
            self._wake.notify()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed")

    def _serve(self) -> None:
        torch.set_num_threads(self._torch_threads)
        running: list[Request] = []
        reason = "the engine is closed"
        try:
            while self._wait_for_work(running):
                running = self._step(running)
        except BaseException as error:
            reason = f"the engine broke: {error!r}"
            raise
        finally:
            with self._wake:
                self._closed = True
                running += self._waiting
                following, self._next = self._next, None
            if following:
                following[1].set_exception(RuntimeError(reason))
            deliver((request, RuntimeError(reason)) for request in running)

    def _wait_for_work(self, running: Sequence[Request]) -> bool:
        """Wait until there is something to do; `False` when the engine is closed."""
        with self._wake:
            self._wake.wait_for(lambda: running or self._waiting or self._closed or self._next)
            if self._closed:
                return False
            following, self._next = self._next, None
        if following:
            weights, done = following
            self._batch.exchange(weights)
            done.set_result(None)
        return True

    def _step(self, running: list[Request]) -> list[Request]:
        self._batch.leave([request.answer for request in running if request.left])
        running = [request for request in running if not request.left]
        joining = self._admit(self._slots - len(running))
        running += joining
        owners = {id(request.answer): request for request in running}
        try:
            made = self._batch.step([request.answer for request in joining])
        except RuntimeError as error:
            self._batch.clear()
            deliver((request, RuntimeError(f"a step failed: {error}")) for request in running)
            return []
        self._made += len(made)
        deliver((owners[id(answer)], piece) for answer, piece in made)
        return [request for request in running if not request.answer.done]

    def _admit(self, free: int) -> list[Request]:
        """Take waiting requests, as many as have a slot."""
        joining: list[Request] = []
        while self._waiting and len(joining) < free:
            request = self._waiting.popleft()
            if not request.left:
                joining.append(request)
        return joining

    def _decode(self, tokens: Sequence[int]) -> str:
        if self._words is not None:  # the wrapper around it costs more than it
            words: str = self._words.decode(tokens, skip_special_tokens=True)
            return words
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _end_tokens(self, model: Any) -> frozenset[int]:  # noqa: ANN401 - foreign and untyped
        configured = model.generation_config.eos_token_id
        several = configured if isinstance(configured, list) else [configured]
        return frozenset({*several, self._tokenizer.eos_token_id} - {None})


def _threads_for(model: Any) -> int:  # noqa: ANN401 - foreign and untyped
    if sum(weight.numel() for weight in model.parameters()) <= _SMALL:
        return 1
    return os.cpu_count() or 1
