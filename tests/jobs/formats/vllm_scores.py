"""Has vLLM read model folders and score tokens: a script for the Python of its environment.

Each line of its input is an order in JSON: `folder`, `dtype` (of the calculation), `tokens` (of
texts), `vocabulary` (its size) and `seconds`. For each it prints a line: MARK, and the class of
vLLM's model and the log-probabilities of every token at each place but the first, or what vLLM
says instead. An order that takes longer ends the process, with a traceback.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import sys
from typing import Any

MARK = "scores: "
CACHE = 1 << 26  # bytes


def main() -> None:
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda look: look()  # else a process for each class: seconds
    for line in sys.stdin:
        order = json.loads(line)
        faulthandler.dump_traceback_later(order["seconds"], exit=True)
        answer = _answer(order)
        faulthandler.cancel_dump_traceback_later()
        print(f"\n{MARK}{json.dumps(answer)}", flush=True)


def _answer(order: dict[str, Any]) -> dict[str, Any]:
    from vllm.distributed import cleanup_dist_env_and_memory

    try:
        return _scores(order)
    except Exception as error:  # noqa: BLE001 - what it says is what is asked
        return {"refused": f"{type(error).__name__}: {error}"}
    finally:
        gc.collect()
        cleanup_dist_env_and_memory()


def _scores(order: dict[str, Any]) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    size = order["vocabulary"]
    engine = LLM(
        model=order["folder"],
        dtype=order["dtype"],
        enforce_eager=True,
        skip_tokenizer_init=True,
        max_model_len=64,
        max_logprobs=size,
        max_num_seqs=4,
        kv_cache_memory_bytes=CACHE,
        compilation_config={"custom_ops": ["none"]},
    )
    asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=size, detokenize=False)
    answers = engine.generate([{"prompt_token_ids": text} for text in order["tokens"]], asked)
    scores = [
        [[place[token].logprob for token in range(size)] for place in answer.prompt_logprobs[1:]]
        for answer in answers
    ]
    return {"model": engine.apply_model(lambda model: type(model).__name__)[0], "scores": scores}


if __name__ == "__main__":
    main()
