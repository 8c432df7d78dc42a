"""Has vLLM read model folders and score tokens: a script for the Python of its environment.

    python vllm_scores.py < ORDER

The order is JSON: `folders`, `tokens` (of texts), `vocabulary` (its size). For each folder a line
is printed: MARK and the log-probabilities of every token at each place but the first, or what vLLM
says instead.
"""

from __future__ import annotations

import gc
import json
import sys
from typing import Any

MARK = "scores: "
CACHE = 1 << 26  # bytes


def main() -> None:
    order = json.load(sys.stdin)
    for folder in order["folders"]:
        print(f"\n{MARK}{json.dumps(_answer(folder, order))}", flush=True)


def _answer(folder: str, order: dict[str, Any]) -> dict[str, Any]:
    from vllm.distributed import cleanup_dist_env_and_memory

    try:
        return {"folder": folder, "scores": _scores(folder, order)}
    except Exception as error:  # noqa: BLE001 - what it says is what is asked
        return {"folder": folder, "refused": f"{type(error).__name__}: {error}"}
    finally:
        gc.collect()
        cleanup_dist_env_and_memory()


def _scores(folder: str, order: dict[str, Any]) -> list[list[list[float]]]:
    from vllm import LLM, SamplingParams

    size = order["vocabulary"]
    engine = LLM(
        model=folder,
        dtype="float32",
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
    return [
        [[place[token].logprob for token in range(size)] for place in answer.prompt_logprobs[1:]]
        for answer in answers
    ]


if __name__ == "__main__":
    main()
