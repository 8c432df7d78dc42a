"""vLLM as an engine server of emulated pools, with an environment of its own.

By hand: `make vllm`. Or name the interpreter of another environment that has vLLM, Ray and this
package by ORCHESTRATOR_VLLM_PYTHON, and run `python -m pytest -m vllm -s`. The tests are chapters
of one story: one endpoint is moved between the pools and broken there.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import psutil
import pydantic
import pytest
from prometheus_client.parser import text_string_to_metric_families
from safetensors.torch import load_file, save_file

from orchestrator.supervisor.record import wait
from tests.chaos.clients import Load
from tests.chaos.vllm_server import (
    BY_HAND,
    HEADS,
    MODEL,
    OPTIONS,
    SECONDS,
    SERVE,
    Ports,
    answers,
    launch,
    servers,
    switch,
)
from tests.conftest import Workplace

POOLING = "runner: pooling, convert: embed, max-model-len: 256"
SHORT = (
    "++pipeline.stages.data.params.draws=2000",
    "++pipeline.stages.evaluate.params={examples:16,max_tokens:4}",
    *(
        f"++pipeline.stages.pretrain.params.{name}={value}"
        for name, value in {
            "steps": 6,
            "batch_size": 8,
            "warmup": 2,
            "log_every": 1,
            "validate_every": 3,
            "validation_rows": 16,
            "checkpoint_every": 3,
        }.items()
    ),
)
CONNECTIONS = 8

pytestmark = BY_HAND


@pytest.fixture(scope="module")
def base(workplace: Workplace, ports: Ports) -> str:
    """The address of a gateway behind which vLLM serves `smoke` on pool `ascend`."""
    launch(workplace, ports, "pipeline=smoke", HEADS)
    return f"http://127.0.0.1:{ports[0]}/v1"


def spent(port: int, endpoint: str) -> float:
    """Return the tokens of prompts that the gateway has counted of an endpoint."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60.0).text
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples]
    return sum(
        sample.value
        for sample in samples
        if sample.name == "gen_ai_client_token_usage_sum"
        and {endpoint, "input"} <= set(sample.labels.values())
    )


@pytest.fixture
def client(base: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=60.0) as opened:
        yield opened


def part_of(server: psutil.Process, name: str) -> psutil.Process:
    """Return the last process of a server whose name begins so."""
    parts = server.children(recursive=True)
    return [part for part in parts if part.name().startswith(name)][-1]


def break_under_load(
    base: str, name: str, harm: Callable[[psutil.Process], None], tell: str
) -> None:
    """Harm a part of the only server under load, and wait until another one has its place."""
    assert wait(lambda: len(servers()) == 1, SECONDS, tick=0.5)
    (server,) = servers()
    with Load(base, MODEL, CONNECTIONS) as load:
        assert wait(lambda: load.answered >= 3 * CONNECTIONS, SECONDS, tick=0.2)
        before = load.answered
        harm(part_of(server, name))
        began = time.monotonic()
        assert wait(lambda: server not in servers(), SECONDS, tick=0.2)
        gone = time.monotonic() - began
        again = load.answered
        assert wait(lambda: load.answered > again + CONNECTIONS and answers(base), SECONDS)
        back = time.monotonic() - began
    kinds = {failure.partition(" ")[2][:100] for failure in load.failures}
    print(f"\n{tell}: the server gone after {gone:.1f} s, answers again after {back:.1f} s")
    print(f"{before} answered before, {again - before} until it was gone; in all {load.line}")
    print(f"{sorted(kinds)}")
    assert load.answered > before


def printed_by_workers(workplace: Workplace) -> str:
    record = json.loads((workplace.folder / ".orchestrator/services/ray.json").read_text())
    logs = Path(record["temporary"][0]).glob("ascend-0/session_2*/logs/worker*.out")
    return "".join(log.read_text(errors="replace") for log in logs)


# --- its API, through the gateway -------------------------------------------------------------


class Sum(pydantic.BaseModel):
    sum: int


def test_the_openai_client_gets_all_that_the_server_can(client: openai.OpenAI) -> None:
    scored = client.completions.create(model=MODEL, prompt="17 + 25 =", max_tokens=4, logprobs=1)
    assert scored.usage is not None
    assert scored.usage.completion_tokens >= 1
    asked: Any = [{"role": "user", "content": "1 + 1 ="}]
    schema = {"type": "object", "properties": {"sum": {"enum": [1, 2]}}, "required": ["sum"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema}}
    chat = client.chat.completions.create(
        model=MODEL, messages=asked, max_tokens=64, temperature=0, response_format=form
    )
    print(f"\na schema: {chat.choices[0].message.content!r}, {chat.choices[0].finish_reason}")
    if chat.choices[0].finish_reason == "stop":
        assert json.loads(chat.choices[0].message.content or "").keys() == {"sum"}
    tool: Any = {"type": "function", "function": {"name": "add", "parameters": schema}}
    tools = client.chat.completions.create(
        model=MODEL, messages=asked, max_tokens=16, tools=[tool]
    )
    assert tools.choices
    with client.chat.completions.create(
        model=MODEL, messages=asked, max_tokens=8, stream=True
    ) as stream:
        assert [chunk for chunk in stream if chunk.choices]
    try:
        parsed = client.chat.completions.parse(
            model=MODEL, messages=asked, max_tokens=64, response_format=Sum
        )
    except openai.LengthFinishReasonError:  # an untrained model writes white space without end
        print("parse: it ran to the limit")
    else:
        assert isinstance(parsed.choices[0].message.parsed, Sum)


def test_what_the_gateway_does_not_know_is_passed_on(client: openai.OpenAI, base: str) -> None:
    answer = client.responses.create(model=MODEL, input="1 + 1 =", max_output_tokens=8)
    assert answer.status in {"completed", "incomplete"}
    root = base.removesuffix("/v1")
    with httpx.Client(timeout=60.0) as plain:
        asked = [{"role": "user", "content": "1 + 1 ="}]
        message = plain.post(
            f"{base}/messages", json={"model": MODEL, "max_tokens": 8, "messages": asked}
        )
        assert message.json()["type"] == "message", message.text
        tokens = plain.post(f"{root}/tokenize", json={"model": MODEL, "prompt": "1 + 1 ="})
        assert tokens.json()["count"] == len(tokens.json()["tokens"]) > 0, tokens.text
        listed = plain.get(f"{base}/models").json()["data"]
    assert [model["id"] for model in listed] == [MODEL]


def test_a_model_that_embeds_is_an_endpoint_and_its_tokens_are_counted(
    workplace: Workplace, ports: Ports, base: str
) -> None:
    words = ("pipeline=smoke", HEADS, f"{SERVE}.endpoint.name=embedding")
    launch(workplace, ports, *words, options=POOLING)
    with openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=60.0) as client:
        texts = ["1 + 1 = 2", "The quick brown fox"]
        told = client.embeddings.create(model="embedding", input=texts)
        plain = client.embeddings.create(model="embedding", input=texts, encoding_format="float")
    assert told.usage.prompt_tokens == told.usage.total_tokens > 0
    for one, other in zip(told.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, rel=1e-5)
    assert told.data[0].embedding != pytest.approx(told.data[1].embedding, rel=1e-3)
    counted = spent(ports[1], "embedding")
    print(f"\n{len(told.data[0].embedding)} numbers a text; tokens counted: {counted}")
    assert counted >= 2 * told.usage.total_tokens
    done = workplace.run("undeploy", "embedding", seconds=120.0)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_whole_pipeline_with_its_gate_ends_at_a_server_that_proves_its_model(
    workplace: Workplace, ports: Ports, base: str
) -> None:
    """Trained on one pool, compared by the gate, proven and served by vLLM on the other."""
    printed = launch(workplace, ports, "pipeline=r2", HEADS, *SHORT)
    print(printed[-1500:])
    with openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=60.0) as client:
        answer = client.completions.create(model="r2", prompt="1 + 1 =", max_tokens=4)
    assert answer.choices[0].finish_reason in {"stop", "length"}
    assert "the log-probabilities recorded of them" in printed_by_workers(workplace)
    done = workplace.run("undeploy", "r2", seconds=120.0)
    assert done.returncode == 0, done.stdout + done.stderr


# --- moved under load -------------------------------------------------------------------------


def test_a_switch_there_and_back_fails_no_request(workplace: Workplace, base: str) -> None:
    with Load(base, MODEL, CONNECTIONS) as load:
        for pool in ("nvidia", "ascend"):
            switch(workplace, f"pool={pool}")
            print(f"\n{pool} serves: {load.line}")
    print(f"there and back: {load.line}, versions {sorted(load.versions)}")
    assert load.failures == []


# --- broken under load ------------------------------------------------------------------------


def test_a_server_whose_core_is_killed_is_replaced(base: str) -> None:
    break_under_load(base, "VLLM::Engine", psutil.Process.kill, "a killed core")


def test_a_server_that_hangs_is_replaced(base: str) -> None:
    break_under_load(base, "VLLM::Engine", psutil.Process.suspend, "a stopped core")


def test_a_server_that_lost_one_of_its_two_chips_is_replaced(
    workplace: Workplace, base: str
) -> None:
    switch(workplace, "pool=nvidia", f"+{SERVE}.needs.devices=2")
    assert wait(lambda: len(servers()) == 1, SECONDS, tick=0.5)
    assert "--tensor-parallel-size" in servers()[0].cmdline()
    break_under_load(base, "VLLM::Worker", psutil.Process.kill, "a killed worker of two")


def test_a_server_that_lost_one_of_its_two_cores_is_replaced(
    workplace: Workplace, base: str
) -> None:
    options = f"{SERVE}.endpoint.engine_options={{{OPTIONS}, data-parallel-size: 2}}"
    switch(workplace, "pool=ascend", f"++{SERVE}.needs.devices=2", options)
    break_under_load(base, "VLLM::Engine", psutil.Process.kill, "a killed core of two")


def test_a_server_that_computes_rubbish_under_load_is_replaced(
    workplace: Workplace, base: str, tmp_path: Path
) -> None:
    """Its weights become "not a number" in place, as by a broken chip: it says that it is well."""
    switch(workplace, "pool=nvidia", f"{SERVE}.endpoint.updates=true")
    assert wait(lambda: len(servers()) == 1, SECONDS, tick=0.5)
    (server,) = servers()
    words = server.cmdline()
    folder = shutil.copytree(words[words.index("--model") + 1], tmp_path / "nan")
    for file in folder.glob("*.safetensors"):
        file.chmod(0o600)
        tensors = load_file(file)
        save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, file)
    port = words[words.index("--port") + 1]
    body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}

    def harm(_: psutil.Process) -> None:
        told = httpx.post(f"http://127.0.0.1:{port}/collective_rpc", json=body, timeout=60.0)
        assert told.status_code == 200, told.text

    break_under_load(base, "VLLM::Engine", harm, "weights that are no numbers")


def test_nothing_is_left_of_a_server(workplace: Workplace, base: str) -> None:
    assert answers(base)
    done = workplace.run("down", seconds=120.0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert wait(lambda: not servers(), 60.0, tick=0.5)
