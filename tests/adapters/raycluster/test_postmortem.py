"""The end of a dead worker's files, and what its node knows of its death."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.raycluster import cgroup
from orchestrator.adapters.raycluster.postmortem import (
    LINES,
    Remains,
    kernel_lines,
    of_memory,
    of_the_node,
    remains,
    tail,
    tool_lines,
)
from orchestrator.adapters.raycluster.process import WorkerProcess
from orchestrator.core.failures.explain import explain
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.failures.log_excerpt import Excerpt
from tests.build import documented

NOW = 10_000.0
KILLED = "Out of memory: Killed process 4711 (python) total-vm:2048kB, anon-rss:1024kB"
XID = "NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus."


def record(text: str, ago: float = 1.0) -> str:
    return f"4,1,{int((NOW - ago) * 1e6)},-;{text}\n SUBSYSTEM=pci\n"


def test_the_last_lines_are_those_of_the_attempt_without_the_marks_of_ray(tmp_path: Path) -> None:
    file = tmp_path / "worker.err"
    before = b"CUDA error: of the attempt before\n"
    file.write_bytes(before + b":task_name:run\n\nterminate called\n\xff broken")

    assert tail(file, len(before)) == ["terminate called", "\\xff broken"]
    file.write_text("\n".join(str(number) for number in range(100_000)))
    assert tail(file) == [str(number) for number in range(100_000 - LINES, 100_000)]


def test_files_that_are_gone_or_shut_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "worker.out"
    file.write_text("last words\n")
    gone = (str(tmp_path / "gone"), 0)
    files = (gone, (str(tmp_path), 0), (str(file), 0))
    dead = WorkerProcess("node", 1, None, files=files)

    assert remains(dead, lambda _worker: [XID]) == Remains(("last words", XID))


def test_of_a_file_that_was_begun_anew_all_is_of_the_attempt(tmp_path: Path) -> None:
    file = tmp_path / "worker.err"
    file.write_text("last words\n")

    assert tail(file, 1_000) == ["last words"]


def test_what_the_node_knows_is_no_word_of_the_worker() -> None:
    assert of_the_node(f"kernel: {XID}")
    assert of_the_node("npu-smi: Alarm")
    assert not of_the_node("xyzzy: fatal 0x77")


def test_the_kernel_is_heard_of_this_process_and_of_chips_and_of_late_alone() -> None:
    other = KILLED.replace("4711", "47")
    records = [record(XID, ago=3600.0), *map(record, (KILLED, other, XID, "usb 1-1: new device"))]

    heard = kernel_lines(records, 4711, NOW, contained=False)
    assert heard == [f"kernel: {KILLED}", f"kernel: {XID}"]
    assert kernel_lines(["rubbish", ""], 4711, NOW, contained=False) == []


def test_in_a_container_numbers_of_processes_say_nothing() -> None:
    heard = kernel_lines([record(KILLED)], 12, NOW, contained=True)
    assert heard == [f"kernel: {KILLED}"]


def test_the_tool_of_a_maker_is_asked_where_there_is_one_and_its_alarms_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho '  Correctable Error : 0'\necho '  Remapping Failure Occurred : Yes'\n"
        "echo '    Pending : No'\n"
    )
    slow = tmp_path / "npu-smi"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    for script in (tool, slow):
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    assert list(tool_lines(0.2)) == ["nvidia-smi: Remapping Failure Occurred : Yes"]


def test_who_was_killed_for_memory_in_a_container_is_told_by_the_count_of_its_kernel() -> None:
    [line] = of_memory(2, 3)
    assert line.startswith("kernel: Memory cgroup out of memory: Killed process, 1 processes")
    assert explain(Excerpt((line,)), documented()).kind is FailureKind.HOST_MEMORY
    for before, now in ((2, 2), (None, 1), (1, None)):
        assert list(of_memory(before, now)) == []


@pytest.mark.parametrize(
    ("groups", "file", "text"),
    [
        ("0::/pod/a\n", "pod/a/memory.events", "low 0\noom 4\noom_kill 3\noom_group_kill 0\n"),
        ("0::/elsewhere\n", "memory.events", "oom_kill 3\n"),
        ("4:cpu:/b\n7:memory:/b\n", "memory/b/memory.oom_control", "under_oom 0\noom_kill 3\n"),
        ("7:memory:/unseen\n", "memory/memory.oom_control", "oom_kill 3\n"),
    ],
)
def test_the_count_is_that_of_the_own_container(
    tmp_path: Path, groups: str, file: str, text: str
) -> None:
    assert cgroup.oom_kills(tmp_path, tmp_path / "groups") is None
    (tmp_path / "groups").write_text(groups)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert cgroup.oom_kills(tmp_path, tmp_path / "groups") == 3
