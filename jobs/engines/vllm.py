"""vLLM's engine in this process: stepped in a thread, behind the protocol of all engines.

vLLM makes tokens; text, stop strings and versions are ours, as for the embedded engine. Before
it serves, and after each update, its log-probabilities are compared with those of transformers.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from jobs.engines import probe
from jobs.engines.answer import Answer, Source
from jobs.engines.scoring import check_text
from jobs.engines.stepping import Stepper
from jobs.engines.tokenizer import Tokenizer
from jobs.engines.undone import check_done
from jobs.engines.vllm_batch import INSTEAD, VllmBatch
from jobs.engines.weights import check_alike, check_tokenizer, load, shape
from jobs.formats.records import KEY
from orchestrator.engine import Piece, Prompt, Sampling, Score
from orchestrator.job import Hardware

DONE = ("max_tokens", "temperature", "top_p", "stop", "seed", "logprobs")


class VllmEngine:
    """Satisfies `orchestrator.engine.Engine`.

    Args:
        model_folder: A Hugging Face folder: config, safetensors, tokenizer.
        hardware: What to run on.
        version: Names the weights; by default the folder's name.
        slots: Answers that are made at once; further ones wait.
        max_context: Limit on prompt and answer together; the model's own where that is less.
        dtype: torch type of the weights, as for the embedded engine.
        cache_gb: Memory for keys and values, GiB.
        compiled: Whether vLLM compiles the model, which takes it half a minute more to start.

    Raises:
        ValueError: vLLM doesn't run this folder rightly here; the message says what does.
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
        cache_gb: float = 1.0,
        compiled: bool = False,
    ) -> None:
        self._folder = model_folder
        model = load(model_folder, dtype, "cpu", computes_on=hardware.device)
        self._shape, self._dtype = shape(model), model.dtype
        self._tokenizer = Tokenizer(model_folder)
        own = getattr(model.config, "max_position_embeddings", max_context)
        self.max_context = min(own, max_context)
        self.vocabulary = int(model.config.vocab_size)
        # Read again: what is loaded is plain, whatever the folder holds.
        config = AutoConfig.from_pretrained(model_folder, local_files_only=True)
        check_able(hardware, config)
        self._quantized = hasattr(config, KEY)  # vLLM computes with what goes in in 8 bits, too
        arguments = {
            "max_model_len": self.max_context,
            "max_num_seqs": slots,
            "dtype": str(model.dtype).removeprefix("torch."),
            "kv_cache_memory_bytes": int(cache_gb * 2**30),
            "enforce_eager": not compiled,
            "max_logprobs": -1,  # no cap: what asks for many is our own
        }
        name = model_folder.name if version is None else version
        self._batch = VllmBatch(arguments, model_folder, self._source(model, name))
        self._updating = threading.Lock()
        self._stepper = Stepper(self._batch, slots, lambda: None)
        proof = self._proof(model)
        try:
            self._stepper.between_steps(lambda: self._batch.begin(proof))
        except (ValueError, RuntimeError):
            self.close()
            raise

    @property
    def version(self) -> str:
        """Name of the weights that serve now."""
        return self._batch.source.version

    @property
    def defaults(self) -> Mapping[str, float]:
        """Nothing: requests that say nothing else get the protocol's own."""
        return {}

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return the token ids of a prompt, with the special tokens that the model expects."""
        return self._tokenizer.encode(text, special=special)

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> list[int]:
        """Return the token ids of a chat, up to where the answer begins."""
        return self._tokenizer.encode_chat(messages, variables)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`, special ones included."""
        return self._tokenizer.decode(tokens, special=True)

    def token_bytes(self, token: int) -> bytes:
        """Return what a token stands for; it may be a part of a character."""
        return self._tokenizer.bytes[token]

    def generate(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Prompt | Piece, None]:
        """Yield the answer, token by token. Closing it frees its slot at the next step."""
        check_done(sampling, DONE)
        return self._stepper.generate(Answer(prompt, sampling, self._tokenizer.decode))

    def score(self, tokens: Sequence[int], begin: int, top: int) -> Sequence[Score]:
        """Return a score for each token from place `begin` on, as `Scorer` says."""
        check_text(tokens, begin, self.max_context)
        found: list[Score] = []

        def act() -> None:
            found.extend(self._batch.score(tokens, begin, top))

        self._stepper.between_steps(act)
        return found

    def statistics(self) -> Mapping[str, float]:
        """Return how busy the engine is; the cache counts as vLLM has it."""
        return {**self._stepper.statistics(), "cache_used": self._batch.cache_used()}

    def health(self) -> str:
        """Return why it can't serve; nothing while its thread lives."""
        return self._stepper.health()

    def update(self, folder: Path, version: str, base: str | None = None) -> None:
        """Serve the weights of another folder from now on; its tokenizer stays the first one.

        Between two steps vLLM reads them, is proven, and takes all answers up anew. A model of
        experts is not read in place, which vLLM does wrongly, but by an engine made anew. The
        folder that served must still be there, for the case that the new one answers wrongly.
        """
        if base is not None:
            raise ValueError(f"{type(self).__name__} takes whole models, not what changed")
        with self._updating:
            check_tokenizer(folder, self._folder)
            model = load(folder, self._dtype, "cpu")
            check_alike(folder, shape(model), self._shape)
            source, proof = self._source(model, version), self._proof(model)
            self._stepper.between_steps(lambda: self._batch.exchange(folder, source, proof))

    def close(self) -> None:
        """End the thread and vLLM. Safe to call twice."""
        self._stepper.close()
        self._batch.close()

    def _source(self, model: Any, version: str) -> Source:  # noqa: ANN401 - foreign and untyped
        return Source(version, self._tokenizer.ends(model.generation_config, self.vocabulary))

    def _proof(self, model: Any) -> Callable[[VllmBatch], None]:  # noqa: ANN401 - as above
        def check(batch: VllmBatch) -> None:
            tokens = probe.prompt(self.vocabulary)
            made, found = batch.try_out(tokens)
            whole = [*tokens, *made]
            logs = probe.by_model(model, whole[:-1])
            expected = logs.gather(1, torch.tensor(whole[1:])[:, None])[:, 0]
            probe.judge(probe.difference(found, expected), model.dtype, quantized=self._quantized)

        return check


def check_able(hardware: Hardware, config: Any) -> None:  # noqa: ANN401 - as above
    """Check that vLLM computes a model of this config rightly on this hardware.

    Raises:
        ValueError: It does not; the message says what does.
    """
    on_cpu, kind = hardware.device == "cpu", config.model_type
    if hardware.emulated and not on_cpu:
        raise ValueError(f"vLLM doesn't run on an emulated {hardware.device!r}; {INSTEAD}")
    if on_cpu and kind.startswith("deepseek"):
        raise ValueError(f"vLLM computes {kind!r} wrongly on a CPU without compiling; {INSTEAD}")
    method = (getattr(config, KEY, None) or {}).get("quant_method")
    if on_cpu and method == "fp8" and not torch.cpu.get_capabilities().get("amx_tile"):
        raise ValueError("vLLM needs AMX for FP8 on a CPU; export the model in bf16")
