"""The answers that vLLM makes, each a request of its engine.

Only this file and the tests know vLLM, which is imported when an engine is made: configs that
name the engine are checked where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.engines.answer import Answer, Source
from jobs.engines.sampling import Choice
from orchestrator.engine import Piece, Score

INSTEAD = "serve it with jobs.engines.embedded.EmbeddedEngine"
PROBED = 8  # tokens that the probe lets vLLM decode


class VllmBatch:
    """The answers that vLLM makes, each a request of it; satisfies `stepping.Batch`."""

    def __init__(self, arguments: Mapping[str, Any], folder: Path, source: Source) -> None:
        self.answers: list[Answer] = []
        self.source = source
        self._arguments = arguments
        self._folder = folder
        self._requests: dict[str, Answer] = {}
        self._numbers = count()
        self._vllm: Any = None

    def begin(self, proof: Callable[[VllmBatch], None]) -> None:
        """Start vLLM, in the thread that will step it: its kernels count that one's threads.

        Raises:
            ValueError: It isn't here, doesn't take the model, or answers wrongly.
        """
        self._vllm = self._made(self._folder)
        proof(self)

    def step(self, joining: Sequence[Answer]) -> list[tuple[Answer, Piece]]:
        """Take `joining` in; return the tokens of a step."""
        self._ask(joining)
        pieces: list[tuple[Answer, Piece]] = []
        for told in self._vllm.step():
            answer = self._requests[told.request_id]
            choices = _choices(told.outputs[0], answer.sampling.logprobs)
            pieces += [(answer, answer.take(c, self.source)) for c in choices if not answer.done]
            if told.finished:
                del self._requests[told.request_id]
        self.leave([answer for answer in self.answers if answer.done])
        return pieces

    def fits(self, joining: Sequence[Answer]) -> bool:
        """Return yes: vLLM knows by itself what its cache holds."""
        del joining
        return True

    def trouble(self) -> str:
        """Return nothing: it isn't tried."""
        return ""

    def leave(self, answers: Sequence[Answer]) -> None:
        """Forget `answers`, and end the requests that there still are."""
        gone = set(map(id, answers))
        self._end([name for name, answer in self._requests.items() if id(answer) in gone])
        self.answers = [answer for answer in self.answers if id(answer) not in gone]

    def clear(self) -> None:
        """Forget all answers."""
        self.leave(list(self.answers))

    def exchange(self, folder: Path, source: Source, proof: Callable[[VllmBatch], None]) -> None:
        """Go on with the weights of another folder, once they are proven.

        Raises:
            ValueError: They answer wrongly; vLLM has read the old ones again.
        """
        answers = self.answers
        self.clear()
        try:
            self._read(folder)
            proof(self)
        except ValueError:
            self._read(self._folder)
            raise
        else:
            self._folder, self.source = folder, source
        finally:
            self._ask(answers)

    def try_out(self, prompt: Sequence[int]) -> tuple[list[int], Tensor]:
        """Return tokens that vLLM makes, and the log-probabilities of the prompt's and of them.

        The prompt's first token has none.
        """
        params = _params(max_tokens=PROBED, temperature=0, logprobs=0, prompt_logprobs=0)
        self._vllm.add_request("probe", {"prompt_token_ids": list(prompt)}, params)
        made: list[int] = []
        logs: list[float] = []
        while self._vllm.has_unfinished_requests():
            for told in self._vllm.step():
                if told.prompt_logprobs and not made:
                    known = zip(prompt[1:], told.prompt_logprobs[1:], strict=True)
                    logs += [at[token].logprob for token, at in known]
                choices = list(_choices(told.outputs[0], 0))
                made += [choice.token for choice in choices]
                logs += [choice.logprob or 0.0 for choice in choices]
        return made, torch.tensor(logs)

    def score(self, tokens: Sequence[int], begin: int, top: int) -> list[Score]:
        """Return a score for each token from place `begin` on; answers are taken up anew after."""
        answers = self.answers
        self.clear()
        params = _params(max_tokens=1, temperature=0, prompt_logprobs=top)
        self._vllm.add_request("score", {"prompt_token_ids": list(tokens)}, params)
        told: list[Mapping[int, Any]] = []
        try:
            while self._vllm.has_unfinished_requests():
                for output in self._vllm.step():
                    told = told or list(output.prompt_logprobs or ())
        finally:
            self._ask(answers)
        return [_score(told[place], tokens[place], top) for place in range(begin, len(tokens))]

    def cache_used(self) -> float:
        """Return the share of the key-value cache that is taken."""
        manager = self._vllm.engine_core.engine_core.scheduler.kv_cache_manager
        return float(manager.usage)

    def close(self) -> None:
        """End vLLM."""
        if self._vllm is not None:
            self._vllm.engine_core.shutdown()

    def _ask(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            name = str(next(self._numbers))
            self._requests[name] = answer
            params = _params_of(answer, self.source)
            self._vllm.add_request(name, {"prompt_token_ids": list(answer.tokens)}, params)
        self.answers += answers

    def _end(self, names: list[str]) -> None:
        self._vllm.abort_request(names)
        for name in names:
            del self._requests[name]

    def _read(self, folder: Path) -> None:
        """Read weights in place; models of experts by a new engine, since vLLM errs there."""
        if self._vllm.model_config.is_moe:
            self.close()
            self._vllm = self._made(folder)
            return
        self._vllm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        self._vllm.reset_prefix_cache()

    def _made(self, folder: Path) -> Any:  # noqa: ANN401 - foreign and untyped
        try:
            from vllm.engine.arg_utils import EngineArgs
            from vllm.v1.engine.llm_engine import LLMEngine
            from vllm.v1.executor import Executor
        except ImportError as error:
            raise ValueError(
                f"vLLM is not in this environment; `make vllm` makes one that has it, or {INSTEAD}"
            ) from error
        config = EngineArgs(model=str(folder), **self._arguments).create_engine_config()
        # On a CPU vLLM takes a process of its own for its threads' sake, unless the environment
        # says otherwise; here it shares ours.
        config.parallel_config.distributed_executor_backend = "uni"
        executor = Executor.get_class(config)
        return LLMEngine(config, executor, log_stats=False, multiprocess_mode=False)


def _params(**fields: Any) -> Any:  # noqa: ANN401 - foreign and untyped
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(detokenize=False, output_kind=RequestOutputKind.DELTA, **fields)


def _params_of(answer: Answer, source: Source) -> Any:  # noqa: ANN401 - as above
    sampling = answer.sampling
    return _params(
        max_tokens=answer.left,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        logprobs=sampling.logprobs,
        stop_token_ids=sorted(source.eos),
    )


def _score(at: Mapping[int, Any], token: int, top: int) -> Score:
    ids, logprobs = zip(*_likeliest(at, top), strict=True)
    return Score(at[token].logprob, ids, logprobs)


def _choices(output: Any, count: int | None) -> Iterable[Choice]:  # noqa: ANN401 - as above
    if count is None or not output.logprobs:
        return map(Choice, output.token_ids)
    return (
        Choice(token, at[token].logprob, _likeliest(at, count))
        for token, at in zip(output.token_ids, output.logprobs, strict=True)
    )


def _likeliest(found: Mapping[int, Any], count: int) -> tuple[tuple[int, float], ...]:
    ordered = sorted(found.items(), key=lambda item: item[1].rank)
    return tuple((token, at.logprob) for token, at in ordered[:count])
