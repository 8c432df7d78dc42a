"""vLLM as the engine server of an endpoint on emulated pools: how tests start, move and ask it.

ORCHESTRATOR_VLLM_PYTHON names the interpreter of an environment that has vLLM, Ray and this
package; `make vllm` makes one.
"""

from __future__ import annotations

import os
from pathlib import Path

import openai
import psutil
import pytest

from tests.conftest import Workplace

NAMED = os.environ.get("ORCHESTRATOR_VLLM_PYTHON", "")  # noqa: TID251 - where vLLM is
PYTHON = Path(NAMED or Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python")
SERVE = "pipeline.stages.serve"
SECONDS = 900.0
SERVER = "vllm.entrypoints.openai.api_server"
MODEL = "smoke"
OPTIONS = "max-model-len: 256, enable-auto-tool-choice: true, tool-call-parser: hermes"
# vLLM's attention on a CPU takes no heads of 16
HEADS = "+pipeline.stages.pretrain.params.model={num_attention_heads:2,num_key_value_heads:2}"
Ports = tuple[int, int]
BY_HAND = [
    pytest.mark.vllm,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not PYTHON.exists(), reason=f"there is no {PYTHON}: make vllm"),
]


def launch(workplace: Workplace, ports: Ports, *words: str, options: str = OPTIONS) -> str:
    """Launch a pipeline whose endpoint vLLM serves on pool `ascend`; return what was printed."""
    done = workplace.run(
        "launch",
        f"gateway.port={ports[0]}",
        f"gateway.metrics.port={ports[1]}",
        f"fleet.pools.ascend.python={PYTHON}",
        "fallbacks.serve=[]",
        f"{SERVE}.endpoint.engine=vllm",
        f"{SERVE}.endpoint.engine_options={{{options}}}",
        *words,
        seconds=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def switch(workplace: Workplace, *words: str) -> None:
    python = f"fleet.pools.nvidia.python={PYTHON}"  # after training, which wants other packages
    hold = f"{SERVE}.endpoint.rollout.hold=1"
    # Two chips on one host's cores are slower than one, and a busy host is anything.
    slower = f"{SERVE}.endpoint.rollout.slower=100"
    done = workplace.run("switch", MODEL, *words, python, hold, slower, seconds=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr


def servers() -> list[psutil.Process]:
    running = []
    for process in psutil.process_iter():
        try:
            if SERVER in process.cmdline() and str(PYTHON) in process.cmdline()[0]:
                running.append(process)
        except (psutil.Error, IndexError):
            continue
    return running


def answers(base: str) -> bool:
    with openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=60.0) as client:
        try:
            answer = client.completions.create(model=MODEL, prompt="17 + 25 =", max_tokens=4)
        except openai.OpenAIError:
            return False
    return answer.choices[0].finish_reason in {"stop", "length"}
