"""vLLM as an engine server of an emulated pool, with an environment of its own.

By hand: `make vllm`, then `make chaos`; or name the interpreter of another environment that has
vLLM, Ray and this package by ORCHESTRATOR_VLLM_PYTHON.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest

from orchestrator.adapters.raycluster.machine import free_ports
from orchestrator.supervisor.record import wait
from tests.conftest import Workplace

NAMED = os.environ.get("ORCHESTRATOR_VLLM_PYTHON", "")  # noqa: TID251 - where vLLM is
PYTHON = Path(NAMED or Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python")
SERVE = "pipeline.stages.serve"
SECONDS = 900.0
SERVER = "vllm.entrypoints.openai.api_server"

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.vllm,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not PYTHON.exists(), reason=f"there is no {PYTHON}: make vllm"),
]


@pytest.fixture
def port() -> int:
    return next(free_ports())


@pytest.fixture
def client(port: int) -> Iterator[openai.OpenAI]:
    base = f"http://127.0.0.1:{port}/v1"
    with openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=60.0) as made:
        yield made


def launch(workplace: Workplace, port: int, *more: str) -> None:
    done = workplace.run(
        "launch",
        "pipeline=smoke",
        f"gateway.port={port}",
        f"fleet.pools.ascend.python={PYTHON}",
        "fallbacks.serve=[]",
        f"{SERVE}.endpoint.engine=vllm",
        f"{SERVE}.endpoint.engine_options="
        "{max-model-len: 256, enable-auto-tool-choice: true, tool-call-parser: hermes}",
        # vLLM's attention on a CPU takes no heads of 16
        "+pipeline.stages.pretrain.params.model={num_attention_heads:2,num_key_value_heads:2}",
        *more,
        seconds=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def servers() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if SERVER in process.cmdline() and str(PYTHON) in process.cmdline()[0]:
                found.append(process)
        except (psutil.Error, IndexError):
            continue
    return found


def answers(client: openai.OpenAI) -> bool:
    try:
        answer = client.completions.create(model="smoke", prompt="17 + 25 =", max_tokens=4)
    except openai.OpenAIError:
        return False
    return answer.choices[0].finish_reason in {"stop", "length"}


def test_a_server_answers_all_that_it_can_and_is_replaced_when_its_core_is_killed(
    workplace: Workplace, client: openai.OpenAI, port: int
) -> None:
    launch(workplace, port)
    answer = client.completions.create(model="smoke", prompt="17 + 25 =", max_tokens=4, logprobs=1)
    assert answer.usage is not None
    assert answer.usage.completion_tokens >= 1
    schema = {"type": "object", "properties": {"sum": {"enum": [1, 2]}}, "required": ["sum"]}
    chat = client.chat.completions.create(
        model="smoke",
        messages=[{"role": "user", "content": "1 + 1 ="}],
        max_tokens=64,
        temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "sum", "schema": schema},
        },
    )
    told = chat.choices[0].message.content
    print(f"\na schema: {told!r}, {chat.choices[0].finish_reason}")
    if chat.choices[0].finish_reason == "stop":
        assert json.loads(told or "").keys() == {"sum"}
    tools = client.chat.completions.create(
        model="smoke",
        messages=[{"role": "user", "content": "1 + 1 ="}],
        max_tokens=16,
        tools=[{"type": "function", "function": {"name": "add", "parameters": schema}}],
    )
    assert tools.choices
    with client.chat.completions.create(
        model="smoke",
        messages=[{"role": "user", "content": "2 + 2 ="}],
        max_tokens=8,
        stream=True,
    ) as stream:
        assert [chunk for chunk in stream if chunk.choices]

    (server,) = servers()
    core = next(p for p in server.children() if p.name().startswith("VLLM::Engine"))
    core.kill()
    began = time.monotonic()
    assert wait(lambda: not server.is_running() or not answers(client), 60.0, tick=0.2)
    assert wait(lambda: server not in servers(), 60.0, tick=0.2)
    gone = time.monotonic() - began
    assert wait(lambda: answers(client), SECONDS, tick=1.0)
    back = time.monotonic() - began
    print(f"a killed core: the server gone after {gone:.1f} s, answers again after {back:.1f} s")
    done = workplace.run("down", seconds=120.0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert wait(lambda: not servers(), 60.0, tick=0.5)


def test_a_server_is_spread_over_two_chips(
    workplace: Workplace, client: openai.OpenAI, port: int
) -> None:
    launch(workplace, port, f"+{SERVE}.needs.devices=2")
    assert answers(client)
    (server,) = servers()
    assert "--tensor-parallel-size" in server.cmdline()
