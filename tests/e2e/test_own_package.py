"""A user's own pipeline, pool and job, outside this repository, with the wheel installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Workplace

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

FLEET = """\
# @package _global_
defaults:
  - /accelerator@fleet.pools.lab.accelerator: mychip
  - _self_
fleet:
  name: own
  pools:
    lab: {devices_per_node: 1, cpus_per_node: 2, emulation: {}}
roles: {prepare: lab, train: lab, serve: lab}
"""
CHIP = "{name: My Chip, vendor: Me, device: mychip, backend: mccl, resource: MYCHIP}\n"
PIPELINE = """\
name: own
stages:
  greet: {job: acme.jobs.greet, role: train, params: {name: Ada}}
  again: {job: acme.jobs.read, role: train, inputs: {greeting: greet}}
"""
SHADOW = "name: noop\nstages:\n  greet: {job: acme.jobs.greet, role: train}\n"
JOBS = """\
def greet(ctx, *, name="you"):
    (ctx.output / "greeting.txt").write_text(f"Hello {name} on {ctx.hardware.accelerator}")
    return {"length": len(name)}


def read(ctx):
    print((ctx.inputs["greeting"] / "greeting.txt").read_text())
"""
FILES = {
    "conf/accelerator/mychip.yaml": CHIP,
    "conf/fleet/own.yaml": FLEET,
    "conf/pipeline/own.yaml": PIPELINE,
    "conf/pipeline/noop.yaml": SHADOW,
    "acme/__init__.py": "",
    "acme/jobs.py": JOBS,
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, installed from the wheel into a virtual environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *options, "-w", folder, ROOT], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    site = folder / "venv/lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    wheel = next(folder.glob("orchestrator-*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "dependencies.pth").write_text(f"{packages}\n")
    return folder / "venv/bin/python"


@pytest.fixture
def own(installed: Path, tmp_path: Path) -> Run:
    """Run the installed command in a user's folder."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    names = ("PATH", "HOME", "LANG")
    environment = {name: os.environ[name] for name in names if name in os.environ}  # noqa: TID251 - a test's own

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        mine = ("--config-dir", "conf", "jobs.packages=[acme]", "jobs.code=[.]")
        here = ("cluster=local", "tracking=none", "fleet=own")
        return subprocess.run(
            [installed, "-m", "orchestrator", words[0], *mine, *here, *words[1:]],
            cwd=tmp_path,
            env={**environment, "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_own_pipeline_pool_chip_and_jobs_run(own, tmp_path):
    done = own("launch", "pipeline=own")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "My Chip (emulated)" in done.stdout
    assert "Hello Ada on My Chip" in Workplace(tmp_path, {}).logs()


def test_own_configs_win_over_packaged_ones(own):
    planned = own("plan", "pipeline=noop")
    assert planned.returncode == 0, planned.stderr
    assert "greet" in planned.stdout


def test_jobs_of_the_package_are_refused_when_they_are_not_allowed(own):
    refused = own("plan", "pipeline=own", "pipeline.stages.greet.job=jobs.noop.noop")
    assert refused.returncode == 2
    assert "jobs.packages" in refused.stderr
