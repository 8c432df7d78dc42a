"""A service of another host, or of another container, is neither taken for gone nor signalled."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import supervisor
from orchestrator.supervisor import record as records
from tests.conftest import Command

SLEEPS = (sys.executable, "-c", "import threading; threading.Event().wait()")
LOOKS = """
import sys
from pathlib import Path
from orchestrator import supervisor
print(supervisor.elsewhere(Path(sys.argv[1]), "mlflow"))
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home whose MLflow runs."""
    folder = tmp_path / ".orchestrator"
    folder.mkdir(mode=0o700)
    supervisor.start(
        folder,
        "mlflow",
        [supervisor.Process(name="server", argv=SLEEPS)],
        info={"uri": "http://127.0.0.1:1"},
    )
    path = folder / "services/mlflow.json"
    kept = path.read_text()
    yield folder
    path.write_text(kept)
    supervisor.stop(folder, "mlflow")


def moved(home: Path, system: str) -> None:
    """Have the record say that its service runs on another system."""
    path = home / "services/mlflow.json"
    record = {**json.loads(path.read_text()), "system": system}
    path.write_text(json.dumps(record))


def test_a_service_of_another_host_is_named_and_left_alone(home: Path) -> None:
    assert supervisor.elsewhere(home, "mlflow") == ""
    moved(home, "h9/another-boot pid:[1]")
    assert supervisor.find(home, "mlflow") is None
    assert supervisor.elsewhere(home, "mlflow") == "h9"
    line = rf"service 'mlflow' of '{home}' runs on h9; type it there"
    for touches in (supervisor.stop, supervisor.clear):
        with pytest.raises(supervisor.ServiceError, match=line):
            touches(home, "mlflow")
    with pytest.raises(supervisor.ServiceError, match=line):
        supervisor.start(home, "mlflow", [supervisor.Process(name="server", argv=SLEEPS)])
    record = records.load(home / "services", "mlflow")
    assert record
    assert records.birth(record.pid) == record.birth, "its daemon lives"


def test_down_and_doctor_name_the_host_and_down_does_not_succeed(
    within: Command, home: Path
) -> None:
    moved(home, "h9/another-boot pid:[1]")
    done = within("down", "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: the MLflow of {str(home)!r} runs on h9; type it there\n"
    checks = json.loads(within("doctor", "--json").stdout)
    said = {"check": "MLflow", "status": "error", "finding": "runs on h9; type it there"}
    assert [check for check in checks if check["check"] == "MLflow"] == [said]


def test_up_names_the_host(within: Command, home: Path) -> None:
    moved(home, "h9/another-boot pid:[1]")
    done = within("ui")
    assert done.returncode == 1
    assert "runs on h9; type it there" in done.stderr


def test_another_space_of_process_ids_of_this_host_is_another_container(home: Path) -> None:
    host, _, space = records.system().partition("/")
    moved(home, f"{host}/{space.partition(' ')[0]} pid:[1]")
    assert supervisor.elsewhere(home, "mlflow") == f"{host}, in another container"


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare")
def test_a_real_space_of_process_ids_sees_it_elsewhere(
    home: Path, environment: dict[str, str]
) -> None:
    words = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", LOOKS, home]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if "unshare" in done.stderr:
        pytest.skip("this process may not make a space of process ids")
    assert done.stdout == f"{socket.gethostname()}, in another container\n"


def test_one_whose_daemon_has_died_there_is_gone(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(home, other)
    moved(other, "h9/another-boot pid:[1]")
    assert supervisor.elsewhere(other, "mlflow") == "", "nobody holds its lock"
    assert supervisor.find(other, "mlflow") is None
    supervisor.clear(other, "mlflow")
    service = supervisor.start(other, "mlflow", [supervisor.Process(name="s", argv=SLEEPS)])
    assert supervisor.find(other, "mlflow") == service
    assert supervisor.stop(other, "mlflow")


def test_a_host_that_has_another_name_now_is_the_same(home: Path) -> None:
    moved(home, f"renamed/{records.system().partition('/')[2]}")
    assert supervisor.elsewhere(home, "mlflow") == ""
    assert supervisor.find(home, "mlflow")


def test_a_record_of_before_is_read(home: Path) -> None:
    path = home / "services/mlflow.json"
    record = json.loads(path.read_text())
    del record["system"]
    path.write_text(json.dumps(record))
    assert supervisor.find(home, "mlflow")
    assert supervisor.elsewhere(home, "mlflow") == ""
