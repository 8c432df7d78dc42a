"""An engine in this process: continuous batching over any causal language model of transformers.

One thread owns the model and steps the batch; answers join and leave between steps. Requests come
from event loops of any other thread, and get their pieces there. Weights are safetensors only.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.engines.batch import Answer, Batch
from jobs.engines.cache import SlotCache, fitting_context
from orchestrator.job import Hardware, Piece, Sampling

_SMALL = 20_000_000
_PROMPT_TOKENS_A_STEP = 4096


class _Request:
    """An answer, and the event loop that waits for its pieces."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.left = False
        self.loop = asyncio.get_running_loop()
        self.pieces: asyncio.Queue[Piece | RuntimeError] = asyncio.Queue()


class EmbeddedEngine:
    """Satisfies `orchestrator.job.Engine`.

    Args:
        model_folder: A Hugging Face folder: config, safetensors, tokenizer.
        hardware: What to run on.
        slots: Answers that are made at once; further ones wait.
        max_context: Limit on prompt and answer together; the model's own where that is less.
        dtype: torch type of the weights; `auto` takes the type in which they were saved, or
            float32 on a CPU that has no arithmetic for that.
        threads: torch threads on a CPU; by default 1 for a small model, else one a core.

    Raises:
        ValueError: The folder is no model that this engine can run.
        OSError: The folder can't be read.
    """

    def __init__(
        self,
        model_folder: Path,
        hardware: Hardware,
        *,
        slots: int = 32,
        max_context: int = 4096,
        dtype: str = "auto",
        threads: int | None = None,
    ) -> None:
        folder = str(model_folder)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True
        )
        model.to(hardware.device).eval()
        if dtype == "auto" and hardware.device == "cpu" and not _computes(model.dtype):
            model.float()
        own = getattr(model.config, "max_position_embeddings", max_context)
        layers, self.max_context = fitting_context(model.config, min(own, max_context))
        self.vocabulary = int(model.config.vocab_size)
        self._batch = Batch(model, SlotCache(layers, self.max_context), self._end_tokens(model))
        self._slots = slots
        self._torch_threads = threads or _threads_for(model)
        self._waiting: deque[_Request] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    @property
    def active(self) -> int:
        """Number of slots that are taken."""
        return len(self._batch.answers)

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
        """Yield the answer, token by token. Closing it frees its slot."""
        request = _Request(Answer(prompt, sampling, self._decode))
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

    def close(self) -> None:
        """End the thread; answers that are being made end by an error. Safe to call twice."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _submit(self, request: _Request) -> None:
        with self._wake:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self._waiting.append(request)
            self._wake.notify()

    def _serve(self) -> None:
        torch.set_num_threads(self._torch_threads)
        running: list[_Request] = []
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
            _deliver((request, RuntimeError(reason)) for request in running)

    def _wait_for_work(self, running: Sequence[_Request]) -> bool:
        with self._wake:
            self._wake.wait_for(lambda: running or self._waiting or self._closed)
            return not self._closed

    def _step(self, running: list[_Request]) -> list[_Request]:
        self._batch.leave([request.answer for request in running if request.left])
        running = [request for request in running if not request.left]
        joining = self._admit(self._slots - len(running))
        running += joining
        owners = {id(request.answer): request for request in running}
        try:
            made = self._batch.step([request.answer for request in joining])
        except RuntimeError as error:
            self._batch.answers.clear()
            _deliver((request, RuntimeError(f"a step failed: {error}")) for request in running)
            return []
        _deliver((owners[id(answer)], piece) for answer, piece in made)
        return [request for request in running if not request.answer.done]

    def _admit(self, free: int) -> list[_Request]:
        """Take waiting requests: as many as have a slot, and prompts of bounded total size."""
        joining: list[_Request] = []
        widest = 0
        while self._waiting and len(joining) < free:
            widest = max(widest, len(self._waiting[0].answer.tokens))
            if joining and widest * (len(joining) + 1) > _PROMPT_TOKENS_A_STEP:
                break
            request = self._waiting.popleft()
            if not request.left:
                joining.append(request)
        return joining

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _end_tokens(self, model: Any) -> frozenset[int]:  # noqa: ANN401 - foreign and untyped
        configured = model.generation_config.eos_token_id
        several = configured if isinstance(configured, list) else [configured]
        return frozenset({*several, self._tokenizer.eos_token_id} - {None})


def _computes(dtype: torch.dtype) -> bool:
    """Whether this CPU has instructions for `dtype`; without, they are some 7 times slower."""
    able: Mapping[str, object] = torch.cpu.get_capabilities()
    wanted = {torch.bfloat16: ("avx512_bf16", "bf16"), torch.float16: ("avx512_fp16", "fp16")}
    return dtype not in wanted or any(able.get(name) for name in wanted[dtype])


def _threads_for(model: Any) -> int:  # noqa: ANN401 - foreign and untyped
    if sum(weight.numel() for weight in model.parameters()) <= _SMALL:
        return 1
    return os.cpu_count() or 1


def _deliver(made: Iterable[tuple[_Request, Piece | RuntimeError]]) -> None:
    """Hand pieces to their event loops, with one call for each loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Request, Piece | RuntimeError]]] = {}
    for request, piece in made:
        by_loop.setdefault(request.loop, []).append((request, piece))
    for loop, items in by_loop.items():
        if loop.is_closed():
            for request, _ in items:
                request.left = True
        else:
            loop.call_soon_threadsafe(_put, items)


def _put(items: Sequence[tuple[_Request, Piece | RuntimeError]]) -> None:
    for request, piece in items:
        request.pieces.put_nowait(piece)
