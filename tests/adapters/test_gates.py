"""Whether what a stage waits for is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from orchestrator.adapters.gates import OutsideGates
from orchestrator.core.spec.policy import Gate
from tests.build import header, plan, stage
from tests.fakes import MemoryStore


@pytest.fixture
def gates() -> OutsideGates:
    store = MemoryStore()
    store.create(header(plan(stage("s"))), 0.0)
    store.approve("run", "s", "ann")
    return OutsideGates(store)


@pytest.fixture
def url() -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/ready" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_file_or_the_first_of_a_glob_opens(gates: OutsideGates, tmp_path: Path) -> None:
    gate = Gate(kind="file", target=f"{tmp_path}/*.csv")
    assert gates.look(gate, "run", "s") is None
    (tmp_path / "b.csv").touch()
    (tmp_path / "a.csv").touch()
    assert gates.look(gate, "run", "s") == f"{tmp_path}/a.csv is there"


def test_enough_lines_of_all_files_open(gates: OutsideGates, tmp_path: Path) -> None:
    gate = Gate(kind="count", target=f"{tmp_path}/*.jsonl", least=3)
    (tmp_path / "a.jsonl").write_text("{}\n{}\n")
    (tmp_path / "folder.jsonl").mkdir()
    assert gates.look(gate, "run", "s") is None
    (tmp_path / "b.jsonl").write_text("{}\n")
    assert gates.look(gate, "run", "s") == "3 lines are there"


def test_a_url_opens_when_it_answers_with_success(gates: OutsideGates, url: str) -> None:
    opened = gates.look(Gate(kind="url", target=f"{url}/ready"), "run", "s")
    assert opened == f"{url}/ready answers"
    assert gates.look(Gate(kind="url", target=f"{url}/later"), "run", "s") is None
    assert gates.look(Gate(kind="url", target="http://127.0.0.1:1/"), "run", "s") is None


def test_an_approval_opens_and_says_whose_it_was(gates: OutsideGates) -> None:
    gate = Gate(kind="approval")
    assert gates.look(gate, "run", "s") == "approved by ann"
    assert gates.look(gate, "run", "t") is None
