"""What is in the way is said at once, before any service is started; `doctor` says it too."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import supervisor, wiring
from orchestrator.core.endpoints.gateway_entry import Gateway
from tests.conftest import Command
from tests.ports import free_address

NONSENSE = {
    "RAY_ADDRESS": ("nonsense", "ray:///", "host:99999", "host:0", f"{'a' * 70}:6379", "http://"),
    "MLFLOW_TRACKING_URI": (
        "nonsense",
        "sqlite:///x.db",
        "http://[::1",
        "http://a:99999",
        "http://",
    ),
    "ORCHESTRATOR_DATABASE": ("nonsense", "sqlite:////proc/nowhere/events.db"),
}
EACH = [(name, value) for name, values in NONSENSE.items() for value in values]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
def nobody() -> str:
    return free_address()


def started(folder: Path) -> list[str]:
    """Return what was recorded of services."""
    return sorted(path.name for path in (folder / ".orchestrator" / "services").glob("*.json"))


@pytest.mark.parametrize("words", [("launch", "pipeline=r2", "--unqualified"), ("up",)])
def test_a_port_that_is_taken_is_said_before_anything_is_started(
    within: Command, tmp_path: Path, taken: int, words: tuple[str, ...]
) -> None:
    done = within(*words, f"gateway.port={taken}")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: port {taken} of 127.0.0.1 is in use; set gateway.port to a free port\n"
    )
    assert started(tmp_path) == []
    assert json.loads(within("status", "--json").stdout) == []


@pytest.mark.parametrize("where", ["RAY_ADDRESS", "MLFLOW_TRACKING_URI"])
def test_a_service_that_does_not_answer_is_said_before_anything_is_started(
    within: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: str, where: str
) -> None:
    monkeypatch.setenv(where, nobody if where == "RAY_ADDRESS" else f"http://{nobody}")
    done = within("launch", "pipeline=noop", "storage.shared=true")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert nobody in done.stderr
    assert "\nRun " not in done.stdout, "no run was begun"
    assert started(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "value"), [one for one in EACH if one[0] != "ORCHESTRATOR_DATABASE"]
)
def test_an_address_that_is_nonsense_gets_one_line(
    within: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    done = within("launch", "pipeline=noop")
    assert done.returncode in {1, 2}
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "\nRun " not in done.stdout
    assert started(tmp_path) == []


@pytest.mark.parametrize(("name", "value"), EACH)
def test_doctor_tells_of_nonsense_in_the_environment(
    within: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    done = within("doctor", "--json")
    assert done.returncode == 1
    checks = {one["check"]: one for one in json.loads(done.stdout)}
    assert checks[name]["status"] == "error"
    assert len(checks[name]["finding"].splitlines()) == 1


@pytest.mark.parametrize("database", NONSENSE["ORCHESTRATOR_DATABASE"])
def test_doctor_tells_whose_a_port_is_where_the_database_says_nothing(
    within: Command, monkeypatch: pytest.MonkeyPatch, taken: int, database: str
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE", database)
    done = within("doctor", f"gateway.port={taken}", "--json")
    checks = {one["check"]: one for one in json.loads(done.stdout)}
    assert checks["ORCHESTRATOR_DATABASE"]["status"] == "error"
    assert checks["endpoint port"] == {
        "check": "endpoint port",
        "status": "warning",
        "finding": f"{taken} is taken by another program; set gateway.port",
    }


def test_doctor_goes_on_past_a_record_that_is_damaged(within: Command, tmp_path: Path) -> None:
    services = tmp_path / ".orchestrator/services"
    services.mkdir(mode=0o700, parents=True)
    services.parent.chmod(0o700)
    (services / "mlflow.json").write_text("{")
    done = within("doctor", "--json")
    checks = {one["check"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 1
    assert checks["services"]["status"] == "error"
    assert "mlflow.json' can't be read" in checks["services"]["finding"]
    assert "endpoint port" in checks


def test_doctor_tells_the_gateway_of_this_home_from_a_program_that_has_another_port(
    within: Command, tmp_path: Path, taken: int, nobody: str
) -> None:
    home, other = tmp_path / ".orchestrator", int(nobody.rpartition(":")[2])
    info = {"url": f"http://127.0.0.1:{other}", "port": other, "cluster": ""}
    sleeps = (sys.executable, "-c", "import threading; threading.Event().wait()")
    supervisor.start(home, "gateway", [supervisor.Process(name="http", argv=sleeps)], info=info)
    try:
        done = within("doctor", f"gateway.port={taken}", "--json")
    finally:
        supervisor.stop(home, "gateway")
    checks = {one["check"]: one for one in json.loads(done.stdout)}
    where = f"and the gateway of this home is on {other}"
    taken_by = f"{taken} is taken by another program, {where}; set gateway.port"
    assert checks["endpoint port"]["finding"] == taken_by


def test_doctor_takes_a_gateway_of_a_host_of_the_same_name_for_another_one(
    within: Command, taken: int
) -> None:
    url, store = f"http://127.0.0.1:{taken}", wiring.database(wiring.home())
    for machine, status in ((f"{wiring.host()}/b n", "warning"), (wiring.machine(), "ok")):
        store.note_gateway(Gateway(name=status, url=url, host=machine, pid=1))
        done = within("doctor", f"gateway.port={taken}", "--json")
        checks = {one["check"]: one for one in json.loads(done.stdout)}
        assert checks["endpoint port"]["status"] == status


def test_doctor_tells_what_answers_and_what_does_not(
    within: Command, monkeypatch: pytest.MonkeyPatch, taken: int, nobody: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{taken}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{nobody}")
    done = within("doctor", "--json")
    checks = {one["check"]: one for one in json.loads(done.stdout)}
    assert checks["RAY_ADDRESS"] == {"check": "RAY_ADDRESS", "status": "ok", "finding": "answers"}
    assert checks["MLFLOW_TRACKING_URI"]["status"] == "error"
    assert "no MLflow server answers" in checks["MLFLOW_TRACKING_URI"]["finding"]
    assert done.returncode == 1


def test_doctor_asks_a_job_server_alone_where_its_address_is_all_that_is_known(
    within: Command, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"http://127.0.0.1:{taken}")
    done = within("doctor", f"cluster.address=http://127.0.0.1:{dead}", "--json")
    checks = {one["check"]: one for one in json.loads(done.stdout)}
    assert checks["job server"]["status"] == "warning"
    assert "no job server answers" in checks["job server"]["finding"]
    assert "takes detached runs alone" in checks["nodes"]["finding"]
    assert "cluster" not in checks, "it is not ours, so it is not down"
