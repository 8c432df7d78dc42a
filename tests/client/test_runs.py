"""Runs from Python: launched, followed, ended and gone on with, as from the command line."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import orchestrator as o
from tests.conftest import CONFIGURED

HERE = ("cluster=local", "tracking=none", "pipeline=noop")


@pytest.fixture(autouse=True)
def _home(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("home"))
    for name in CONFIGURED:
        monkeypatch.delenv(name, raising=False)


def test_a_thread_that_is_not_the_first_launches_a_run() -> None:
    with ThreadPoolExecutor(1) as server:
        run = server.submit(o.launch, *HERE).result()
    assert run.state == "succeeded"
