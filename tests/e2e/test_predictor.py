"""A user's own model that is no language model: deployed, asked, switched and rolled back."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(540)]

PIPELINE = """\
name: vision
stages:
  weigh: {job: vision.jobs.weigh, role: train}
  serve:
    role: serve
    inputs: {model: weigh}
    endpoint:
      name: vision
      engine: vision.engine.Edges
      rollout: {hold: 1, requests: 4}
      probe: {pixels: [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]}
"""
JOBS = """\
import torch


def weigh(ctx):
    kernel = torch.tensor([[[[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]]])
    torch.save(kernel, ctx.output / "kernel.pt")
"""
EDGES = Path(__file__).parents[1] / "contracts" / "edges.py"
FILES = {
    "conf/pipeline/vision.yaml": PIPELINE,
    "vision/__init__.py": "",
    "vision/jobs.py": JOBS,
    "vision/engine.py": EDGES.read_text(encoding="utf-8"),
}
MINE = ("--config-dir", "conf", "jobs.packages=[vision]", "jobs.code=[.]", "tracking=none")


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def served(workplace: Any, port: int) -> Any:
    """The endpoint, served on pool `ascend`."""
    for name, text in FILES.items():
        path = Path(workplace.folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    words = ("pipeline=vision", f"gateway.port={port}", "roles.serve=ascend")
    done = workplace.run("launch", *MINE, *words, seconds=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return workplace


def asked(port: int) -> Any:
    pixels = [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    body = json.dumps({"model": "vision", "pixels": pixels}).encode()
    url = f"http://127.0.0.1:{port}/vision/v1/predict"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
        return json.load(answer)


def test_a_predictor_is_deployed_switched_and_rolled_back_like_a_model(
    served: Any, port: int
) -> None:
    first = asked(port)
    assert (first["edges"][1][1], first["pool"]) == (-4.0, "ascend")
    switched = served.run("switch", "vision", "pool=nvidia", "--no-qualify", "--unqualified")
    assert switched.returncode == 0, switched.stdout + switched.stderr
    assert asked(port)["pool"] == "nvidia"
    back = served.run("rollback", "vision")
    assert back.returncode == 0, back.stdout + back.stderr
    assert asked(port)["pool"] == "ascend"
