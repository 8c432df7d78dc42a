"""Services with trivial processes: order, readiness, failure, end, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.supervisor import Process, Service, ServiceError, find, start, stop
from orchestrator.supervisor.record import birth, group_lives, load, wait
from tests.ports import free_port

LISTEN = """
import socket, sys, threading
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
threading.Event().wait()
"""
SLEEP = "import threading; print('asleep', flush=True); threading.Event().wait()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEP
BREAK = "import sys; sys.exit('OSError: the port is in use')"
BREED = (
    "import subprocess, sys, threading;"
    f"print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}], process_group=0).pid, flush=True);"
    "threading.Event().wait()"
)


def process(name: str, code: str, *argv: str, **rest: object) -> Process:
    command = (sys.executable, "-c", code, *argv)
    return Process(name=name, argv=command, **rest)  # type: ignore[arg-type]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    stop(tmp_path, "svc", grace=1.0)


def dead(pid: int) -> bool:
    return wait(lambda: birth(pid) is None, 5.0)


def first_number(home: Path) -> int:
    return int((home / "services" / "svc-one.log").read_text().split()[0])


def record_exists(home: Path) -> bool:
    return (home / "services" / "svc.json").exists()


def begin(home: Path, *processes: Process, **rest: object) -> Service:
    return start(home, "svc", processes, **rest)  # type: ignore[arg-type]


def test_a_service_is_found_with_its_processes_ports_and_notes(home: Path) -> None:
    port = free_port()
    service = begin(
        home,
        process("server", LISTEN, str(port), ready=("127.0.0.1", port)),
        process("client", SLEEP, after=("127.0.0.1", port), env={"WHO": "me"}),
        info={"port": port},
    )

    with socket.create_connection(("127.0.0.1", port), timeout=1.0):
        assert list(service.processes) == ["server", "client"]
    found = find(home, "svc")
    assert found == service
    assert found.info == {"port": port}


def test_a_service_lives_in_a_session_of_its_own(home: Path) -> None:
    service = begin(home, process("one", SLEEP))

    assert os.getsid(service.pid) == service.pid != os.getsid(0)
    assert os.getpgid(service.processes["one"]) == service.processes["one"]


def test_a_process_is_not_started_before_the_one_that_it_waits_for_answers(home: Path) -> None:
    port = free_port()
    with pytest.raises(ServiceError, match=f"client: no answer at 127.0.0.1:{port} within 0.5 s"):
        begin(
            home,
            process("server", SLEEP),
            process("client", SLEEP, after=("127.0.0.1", port)),
            timeout=0.5,
        )

    assert not (home / "services" / "svc-client.log").exists()


def test_a_start_that_fails_says_the_line_that_tells_and_leaves_nothing(home: Path) -> None:
    scratch = home / "scratch"
    scratch.mkdir()
    with pytest.raises(ServiceError, match="two ended with code 1: OSError: the port is in use"):
        begin(
            home,
            process("one", BREED),
            process(
                "two", "import time; time.sleep(0.5);" + BREAK, ready=("127.0.0.1", free_port())
            ),
            temporary=[scratch],
        )

    assert dead(first_number(home))
    assert not scratch.exists()
    assert not record_exists(home)
    assert find(home, "svc") is None


def test_what_ends_before_all_is_up_is_tried_again_as_often_as_it_may(home: Path) -> None:
    port, mark = free_port(), home / "tried"
    late = (
        "import pathlib, sys; mark = pathlib.Path(sys.argv[2]); tried = mark.exists();"
        "mark.touch(); tried or sys.exit('the head is not there yet');" + LISTEN
    )
    late_server = process("late", late, str(port), str(mark), ready=("127.0.0.1", port), tries=2)
    service = begin(home, late_server)

    assert list(service.processes) == ["late"]
    assert service.exited == {}
    log = (home / "services" / "svc-late.log").read_text()
    assert log.splitlines() == ["the head is not there yet", "listening"]


def test_what_ends_each_time_is_fatal_after_its_last_try(home: Path) -> None:
    with pytest.raises(ServiceError, match="one ended with code 1: OSError: the port is in use"):
        begin(home, process("one", BREAK, ready=("127.0.0.1", free_port()), tries=2))

    assert (home / "services" / "svc-one.log").read_text().count("in use") == 2


def test_a_port_at_which_somebody_else_answers_is_not_taken_for_ours(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
        with pytest.raises(ServiceError, match=f"one: 127.0.0.1:{port} is in use by another"):
            begin(home, process("one", LISTEN, str(port), ready=("127.0.0.1", port)))

    assert not record_exists(home)


def test_a_command_that_is_not_there_is_named(home: Path) -> None:
    with pytest.raises(ServiceError, match="no-such-command"):
        begin(home, Process(name="one", argv=("no-such-command",)))

    assert not record_exists(home)


def test_stop_ends_all_and_removes_what_is_temporary(home: Path) -> None:
    scratch = home / "scratch"
    scratch.mkdir()
    service = begin(home, process("one", BREED), process("two", SLEEP), temporary=[scratch])

    assert stop(home, "svc")
    assert all(dead(pid) for pid in (service.pid, *service.processes.values()))
    assert not scratch.exists()
    assert not record_exists(home)
    assert not stop(home, "svc")


def test_what_ignores_the_polite_signal_is_killed_when_the_grace_is_over(home: Path) -> None:
    service = begin(home, process("one", STUBBORN))
    log = home / "services" / "svc-one.log"
    assert wait(lambda: "asleep" in log.read_text(), 5.0)

    assert stop(home, "svc", grace=0.3)
    assert dead(service.processes["one"])
    assert not record_exists(home)


def test_a_process_that_ends_is_recorded_and_not_restarted(home: Path) -> None:
    service = begin(home, process("one", SLEEP), process("two", SLEEP))
    os.kill(service.processes["two"], signal.SIGKILL)

    def seen() -> bool:
        found = find(home, "svc")
        return found is not None and found.exited == {"two": -signal.SIGKILL}

    assert wait(seen, 5.0)


def test_a_process_that_is_wanted_again_is_restarted_and_its_log_goes_on(home: Path) -> None:
    service = begin(home, process("one", SLEEP, again=True))
    first = service.processes["one"]
    log = home / "services" / "svc-one.log"
    assert wait(lambda: log.read_text().count("asleep") == 1, 5.0)
    os.kill(first, signal.SIGKILL)

    def again() -> bool:
        found = find(home, "svc")
        return found is not None and found.processes.get("one", first) != first

    assert wait(again, 5.0)
    assert wait(lambda: log.read_text().count("asleep") == 2, 5.0)


def test_a_service_with_no_process_left_is_gone(home: Path) -> None:
    service = begin(home, process("one", SLEEP))
    os.kill(service.processes["one"], signal.SIGKILL)

    assert wait(lambda: find(home, "svc") is None, 5.0)
    assert dead(service.pid)


def test_after_a_killed_daemon_nothing_is_found_and_stop_still_ends_all(home: Path) -> None:
    service = begin(home, process("one", BREED))
    log = home / "services" / "svc-one.log"
    assert wait(lambda: log.read_text().strip() != "", 5.0)
    os.kill(service.pid, signal.SIGKILL)
    assert dead(service.pid)

    assert find(home, "svc") is None
    assert stop(home, "svc")
    assert dead(service.processes["one"])
    assert dead(first_number(home))


def test_a_start_after_a_killed_daemon_ends_what_that_one_left(home: Path) -> None:
    first = begin(home, process("one", SLEEP))
    os.kill(first.pid, signal.SIGKILL)
    assert dead(first.pid)

    second = begin(home, process("one", SLEEP))
    assert dead(first.processes["one"])
    assert find(home, "svc") == second


def test_a_number_that_belongs_to_another_process_now_is_left_alone(home: Path) -> None:
    service = begin(home, process("one", SLEEP))
    path = home / "services" / "svc.json"
    kept = path.read_text()
    assert stop(home, "svc")
    path.write_text(kept.replace(f'"pid": {service.processes["one"]}', f'"pid": {os.getpid()}'))

    assert find(home, "svc") is None
    path.write_text(kept.replace(f'"pid": {service.processes["one"]}', f'"pid": {os.getpid()}'))
    assert not stop(home, "svc")


def test_a_group_that_has_ended_does_not_live_though_nobody_has_reaped_it() -> None:
    leader = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    assert group_lives(leader.pid)
    os.killpg(leader.pid, signal.SIGKILL)
    ended = wait(lambda: not group_lives(leader.pid), 5.0)
    os.killpg(leader.pid, 0)  # its number is still there
    leader.wait()
    assert ended


def test_of_two_that_start_a_service_at_once_one_does_and_both_get_it(home: Path) -> None:
    got: list[Service] = []
    threads = [
        threading.Thread(target=lambda: got.append(begin(home, process("one", SLEEP))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(got) == 3
    assert len({service.pid for service in got}) == 1


def test_a_damaged_record_is_named(home: Path) -> None:
    folder = home / "services"
    folder.mkdir()
    (folder / "svc.json").write_text("{")

    with pytest.raises(ServiceError, match=r"svc\.json' can't be read"):
        load(folder, "svc")
    (folder / "svc.json").unlink()


def test_records_and_logs_are_their_owners_alone_whatever_the_umask(home: Path) -> None:
    (home / "services").mkdir(mode=0o777)
    before = os.umask(0)
    try:
        begin(home, process("one", SLEEP))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (home / "services").iterdir()}
    assert modes.keys() == {"svc.json", "svc.lock", "svc.log", "svc-one.log"}
    assert set(modes.values()) == {0o600}
    assert (home / "services").stat().st_mode & 0o777 == 0o700
