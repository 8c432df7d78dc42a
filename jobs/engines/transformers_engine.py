"""An engine that stands in for a server in the parity gate: transformers' own forward, no cache.

It reads a text anew for each token that it adds. That is slow, and right for every causal language
model that transformers runs: states, indexes and recurrent layers need no cache of ours.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from jobs.engines.model_tokenizer import Tokenizer
from jobs.engines.routing import by_token, recorded
from jobs.engines.scoring import check_text, score_of
from jobs.engines.type_limits import check_type, context_of, vocabulary_of
from jobs.engines.weights import load, types
from jobs.parity.weight_norms import norms, plain
from orchestrator.engine import Piece, Sampling, Score
from orchestrator.job import Hardware


class TransformersEngine:
    """Satisfies `Scorer` and `Inspector`, and generates greedy answers.

    Args:
        model_folder: A Hugging Face folder: config, safetensors, tokenizer.
        hardware: What to run on.
        dtype: torch type of the weights, as the embedded engine has it.

    Attributes:
        types: The format in which the weights are `stored`, and the type that is `computed` in.

    Raises:
        ValueError: The folder is no model that transformers can run.
        OSError: The tokenizer can't be read.
    """

    def __init__(self, model_folder: Path, hardware: Hardware, *, dtype: str = "auto") -> None:
        self._model = load(model_folder, dtype, hardware.device)
        check_type(self._model.config)
        self._tokenizer = Tokenizer(model_folder)
        self.vocabulary = vocabulary_of(self._model.config)
        self.max_context = context_of(self._model.config)
        self.types: Mapping[str, str] = types(model_folder, self._model)
        self._ends = self._tokenizer.ends(self._model.generation_config, self.vocabulary)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return the token ids of a prompt, with the special tokens that the model expects."""
        return self._tokenizer.encode(text, special=special)

    def encode_chat(self, messages: Sequence[Mapping[str, object]]) -> list[int]:
        """Return the token ids of a chat, up to where the answer begins."""
        return self.encode(self._tokenizer.render(messages), special=False)

    async def generate(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Piece, None]:
        """Yield the likeliest answer, token by token.

        Raises:
            ValueError: Something else is asked for.
        """
        if sampling.temperature:
            raise ValueError(f"temperature={sampling.temperature!r}: this engine is greedy alone")
        tokens, text = list(prompt), ""
        for left in reversed(range(sampling.max_tokens)):
            token = int(self._scores(tokens)[-1].argmax())
            tokens.append(token)
            ended = token in self._ends
            whole = self._tokenizer.decode(tokens[len(prompt) :])
            finish = "stop" if ended else None if left else "length"
            yield Piece(whole[len(text) :], token, finish=finish)
            text = whole
            if ended:
                return

    def score(self, tokens: Sequence[int], begin: int, top: int) -> Sequence[Score]:
        """Return a score for each token from place `begin` on, as `Scorer` says."""
        check_text(tokens, begin, self.max_context)
        scores = self._scores(tokens[:-1])
        return [score_of(scores[at - 1], tokens[at], top) for at in range(begin, len(tokens))]

    def norms(self) -> Mapping[str, Sequence[Sequence[float]]]:
        """Return the norms of the blocks of the weights that serve, as `Inspector` says."""
        return plain(norms(self._model))

    def experts(self, tokens: Sequence[int], begin: int) -> Sequence[Sequence[Sequence[int]]]:
        """Return which experts are chosen for each token from `begin` on; see `Inspector`."""
        check_text(tokens, begin, self.max_context)
        with recorded(self._model) as choices:
            self._scores(tokens[:-1])
        chosen = by_token(choices, rows=1)
        experts: list[list[list[int]]] = [] if chosen is None else chosen[0, begin - 1 :].tolist()
        return experts

    def close(self) -> None:
        """Free nothing: it has neither threads nor a cache."""

    @torch.inference_mode()
    def _scores(self, tokens: Sequence[int]) -> Tensor:
        """Return the scores [place, vocabulary] after each of the tokens."""
        strange = [token for token in tokens if not 0 <= token < self.vocabulary]
        if strange:
            raise ValueError(f"the model has no row for token {strange[0]}")
        ids = torch.tensor([list(tokens)], device=self._model.device)
        scores: Tensor = self._model(input_ids=ids, use_cache=False).logits[0]
        return scores
