"""An engine in this process, as lm-evaluation-harness asks models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import has_bos_prefix, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from orchestrator.engine import Engine, Piece, Prompt, Sampling

Pair = tuple[list[int], list[int]]  # tokens of a context, and of what follows it

_DRAWN = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


class EngineLM(TemplateLM):  # type: ignore[misc] # foreign and untyped
    """Satisfies lm-eval's `LM`. Texts that are too long lose their beginning."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Any,  # noqa: ANN401 - a transformers tokenizer
        *,
        seed: int,
        done: Callable[[int, int], object],
    ) -> None:
        """Ask `engine`; `done` is told how many of how many requests are answered."""
        super().__init__()
        self.tokenizer = tokenizer
        self._engine, self._seed, self._done = engine, seed, done

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        token: int = self.tokenizer.eos_token_id
        return token

    @property
    def prefix_token_id(self) -> int:
        """The token that a text begins with where nothing stands before it."""
        token: int | None = self.tokenizer.bos_token_id
        return self.eot_token_id if token is None else token

    @property
    def tokenizer_name(self) -> str:
        """The name of the tokenizer."""
        return str(self.tokenizer.name_or_path)

    def apply_chat_template(
        self,
        chat_history: list[dict[str, str]],
        add_generation_prompt: bool = True,  # noqa: FBT001, FBT002 - as lm-eval asks
    ) -> str:
        """Return a chat as the template has it."""
        text: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,  # noqa: FBT001 - as lm-eval asks
        **_: object,
    ) -> list[int]:
        """Return the tokens of a text, with the special ones that a prompt begins with."""
        if add_special_tokens is None:
            bos = self.tokenizer.decode(self.prefix_token_id)
            add_special_tokens = not has_bos_prefix(string, bos)
        return self._engine.encode(string, special=add_special_tokens)

    def loglikelihood_rolling(self, requests: Sequence[Instance], **_: object) -> list[float]:
        """Return the log-likelihood of whole texts, in windows where they are long."""
        likelihoods = []
        for request in requests:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._engine.max_context - 1,
                context_len=1,
            )
            pairs = [(None, *make_disjoint_window(window)) for window in windows]
            likelihoods.append(sum(value for value, _ in self._loglikelihood_tokens(pairs)))
        return likelihoods

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: object
    ) -> list[tuple[float, bool]]:
        """Return the log-likelihood of what follows each context, and whether it is likeliest."""
        pairs = [(context, rest) for _, context, rest in requests]
        return self._all([self._likelihood(pair) for pair in pairs])

    def generate_until(self, requests: Sequence[Instance], **_: object) -> list[str]:
        """Return an answer to each context."""
        asked = enumerate(request.args for request in requests)
        return self._all([self._answer(number, *args) for number, args in asked])

    async def _likelihood(self, pair: Pair) -> tuple[float, bool]:
        context, rest = pair
        tokens = [*context, *rest][-self._engine.max_context :]
        sampling = Sampling(max_tokens=0, temperature=0.0, prompt_logprobs=1)
        async for given in self._engine.generate(tokens, sampling):
            if isinstance(given, Prompt):
                pairs = list(zip(given.scores, tokens, strict=True))[-len(rest) :]
                scores = [(score, token) for score, token in pairs if score is not None]
                total = sum(score.logprob for score, _ in scores)
                return total, all(score.top[0] == token for score, token in scores)
        raise RuntimeError("the engine gives no log-probabilities of a prompt")

    async def _answer(self, number: int, context: str, wanted: dict[str, Any]) -> str:
        asked = normalize_gen_kwargs(wanted)
        drawn = {name: asked[name] for name in _DRAWN if asked.get(name) is not None}
        most = int(asked["max_gen_toks"])
        tokens = self.tok_encode(context)[-max(1, self._engine.max_context - most) :]
        stop = tuple(text for text in asked["until"] if text)
        sampling = Sampling(max_tokens=most, stop=stop, seed=self._seed + number, **drawn)
        pieces = self._engine.generate(tokens, sampling)
        return "".join([piece.text async for piece in pieces if isinstance(piece, Piece)])

    def _all(self, answers: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Return what all requests give; the engine does as many at once as it has slots."""
        answered = 0

        async def counted(request: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - as it gives
            nonlocal answered
            given = await request
            answered += 1
            self._done(answered, len(answers))
            return given

        async def gathered() -> list[Any]:
            return await asyncio.gather(*map(counted, answers))

        return asyncio.run(gathered())
