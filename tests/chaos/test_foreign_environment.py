"""A pool whose replicas run in an environment of their own: vLLM serves what the pipeline made.

By hand: `make vllm`, then `make chaos`.
"""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from tests.conftest import Workplace

PORT = 18555
PYTHON = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON.exists(), reason=f"there is no {PYTHON}: make vllm"),
]


def test_vllm_serves_on_a_pool_with_its_own_environment(workplace: Workplace) -> None:
    done = workplace.run(
        "launch",
        "pipeline=smoke",
        f"gateway.port={PORT}",
        f"fleet.pools.ascend.python={PYTHON}",
        "fallbacks.serve=[]",
        "pipeline.stages.serve.endpoint.engine=jobs.engines.vllm.VllmEngine",
        # vLLM's attention on a CPU takes no heads of 16
        "+pipeline.stages.pretrain.params.model={num_attention_heads:2,num_key_value_heads:2}",
        seconds=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="none")
    answer = client.completions.create(model="smoke", prompt="17 + 25 =", max_tokens=4)
    assert answer.usage is not None
    print(f"\nvLLM on the pool answers {answer.choices[0].text!r}")
    assert answer.usage.completion_tokens >= 1
    assert str(answer.system_fingerprint).startswith("r1-")
