"""Whether what a stage waits for is there."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.adapters.artifacts import open_files
from orchestrator.adapters.gates import GateConditions
from orchestrator.adapters.gates.files import LineCounter, Listed, LocalFiles, RemoteFiles
from orchestrator.core.spec.policy import Gate
from tests.build import header, plan, stage
from tests.fakes import MemoryStore


@pytest.fixture
def gates() -> GateConditions:
    store = MemoryStore()
    store.create(header(plan(stage("s"))), 0.0)
    store.approve("run", "s", "ann")
    return GateConditions(store, open_files, patience=60.0)


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


def test_a_file_or_the_first_of_a_glob_opens(gates: GateConditions, tmp_path: Path) -> None:
    gate = Gate(kind="file", target=f"{tmp_path}/*.csv")
    assert gates.opened_by(gate, "run", "s") is None
    (tmp_path / "b.csv").touch()
    (tmp_path / "a.csv").touch()
    assert gates.opened_by(gate, "run", "s") == f"{tmp_path}/a.csv is there"


def test_enough_lines_of_all_files_open(gates: GateConditions, tmp_path: Path) -> None:
    gate = Gate(kind="count", target=f"{tmp_path}/*.jsonl", least=3)
    (tmp_path / "a.jsonl").write_text("{}\n{}\n")
    (tmp_path / "folder.jsonl").mkdir()
    assert gates.opened_by(gate, "run", "s") is None
    (tmp_path / "b.jsonl").write_text("{}\n")
    assert gates.opened_by(gate, "run", "s") == "3 lines are there"


def test_a_url_opens_when_it_answers_with_success(gates: GateConditions, url: str) -> None:
    opened = gates.opened_by(Gate(kind="url", target=f"{url}/ready"), "run", "s")
    assert opened == f"{url}/ready answers"
    assert gates.opened_by(Gate(kind="url", target=f"{url}/later"), "run", "s") is None
    assert gates.opened_by(Gate(kind="url", target="http://127.0.0.1:1/"), "run", "s") is None


def test_an_approval_opens_and_says_whose_it_was(gates: GateConditions) -> None:
    gate = Gate(kind="approval")
    assert gates.opened_by(gate, "run", "s") == "approved by ann"
    assert gates.opened_by(gate, "run", "t") is None


# --- URLs of other storage -----------------------------------------------------------------------


@pytest.fixture
def bucket() -> Iterator[str]:
    folder = f"/{uuid.uuid4().hex}"
    MemoryFileSystem().makedirs(folder)
    yield f"memory:/{folder}"
    MemoryFileSystem().rm(folder, recursive=True)


def put(url: str, content: bytes) -> None:
    MemoryFileSystem().pipe_file(url.removeprefix("memory:/"), content)


def test_a_file_of_another_storage_opens(gates: GateConditions, bucket: str) -> None:
    plain = Gate(kind="file", target=f"{bucket}/done")
    pattern = Gate(kind="file", target=f"{bucket}/*.csv")
    assert gates.opened_by(plain, "run", "s") is None
    assert gates.opened_by(pattern, "run", "s") is None
    put(f"{bucket}/done", b"")
    put(f"{bucket}/a.csv", b"")
    folder = bucket.removeprefix("memory:/")
    assert gates.opened_by(plain, "run", "s") == f"{folder}/done is there"
    assert gates.opened_by(pattern, "run", "s") == f"{folder}/a.csv is there"


def test_lines_of_files_of_another_storage_are_counted(gates: GateConditions, bucket: str) -> None:
    gate = Gate(kind="count", target=f"{bucket}/**/*.jsonl", least=3)
    put(f"{bucket}/a/x.jsonl", b"{}\n{}\n")
    assert gates.opened_by(gate, "run", "s") is None
    put(f"{bucket}/b/y.jsonl", b"{}\n")
    assert gates.opened_by(gate, "run", "s") == "3 lines are there"


def test_a_file_url_is_a_path_of_this_host(gates: GateConditions, tmp_path: Path) -> None:
    (tmp_path / "done").touch()
    gate = Gate(kind="file", target=f"file://{tmp_path}/done")
    assert gates.opened_by(gate, "run", "s") == f"{tmp_path}/done is there"


def test_what_can_not_be_looked_at_is_shut_and_said_once(
    gates: GateConditions, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(kind="file", target="nothing://bucket/done")
    assert [gates.opened_by(gate, "run", "s") for _ in range(3)] == [None] * 3
    (record,) = caplog.records
    assert record.getMessage().startswith("gate 'nothing://bucket/done' can't be looked at: ")


# --- what is read --------------------------------------------------------------------------------


class Reads:
    """Files that note which parts of them were read."""

    def __init__(self, files: LocalFiles | RemoteFiles) -> None:
        self.files = files
        self.parts: list[tuple[int, int]] = []

    def matching(self) -> Mapping[str, Listed]:
        return self.files.matching()

    def read(self, path: str, start: int, end: int) -> Iterator[bytes]:
        self.parts.append((start, end))
        return self.files.read(path, start, end)


def test_only_what_was_added_to_a_local_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n" * 5000)
    counter, reads = LineCounter(), Reads(LocalFiles(str(path)))
    assert [counter.count(reads), counter.count(reads)] == [5000, 5000]
    assert reads.parts == [(0, 15_000)]
    with path.open("a") as file:
        file.write("{}\n")
    assert counter.count(reads) == 5001
    assert reads.parts[1:] == [(15_000 - 4096, 15_000), (15_000, 15_003)]


def test_only_what_was_added_to_a_remote_file_is_read(bucket: str) -> None:
    put(f"{bucket}/a", b"{}\n" * 10)
    counter, reads = LineCounter(), Reads(RemoteFiles(f"{bucket}/a", open_files))
    assert [counter.count(reads), counter.count(reads)] == [10, 10]
    put(f"{bucket}/a", b"{}\n" * 11)
    assert counter.count(reads) == 11
    assert reads.parts == [(0, 30), (0, 30), (30, 33)]


def test_a_file_that_was_written_anew_is_counted_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    counter, files = LineCounter(), LocalFiles(str(path))
    path.write_text("{}\n{}\n")
    assert counter.count(files) == 2
    path.write_text("a much longer line than both of those\n")
    assert counter.count(files) == 1
    path.write_text("\n")
    assert counter.count(files) == 1
    path.unlink()
    assert counter.count(files) == 0


# --- what hangs ----------------------------------------------------------------------------------


def test_a_file_system_that_hangs_holds_nobody_up_and_is_asked_once(bucket: str) -> None:
    asked, answers, opened = threading.Event(), threading.Event(), list[str]()

    def hanging(url: str) -> object:
        opened.append(url)
        asked.set()
        answers.wait(60)
        return open_files(url)

    gates = GateConditions(MemoryStore(), hanging, patience=0.0)  # type: ignore[arg-type]
    gate = Gate(kind="file", target=f"{bucket}/done")
    put(f"{bucket}/done", b"")
    assert [gates.opened_by(gate, "run", "s") for _ in range(3)] == [None] * 3
    assert asked.wait(60)
    assert opened == [gate.target]
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "gate")
    answers.set()
    thread.join(60)
    assert gates.opened_by(gate, "run", "s") == f"{bucket.removeprefix('memory:/')}/done is there"
