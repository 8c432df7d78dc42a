"""The service that keeps endpoints, as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from orchestrator.service.daemons.reconciler import Moves
from orchestrator.supervisor.record import wait
from tests.listing import listing
from tests.ports import free_address


@contextmanager
def reconciling(address: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have the service look after this folder's endpoints, for a cluster at `address`."""
    argv = [sys.executable, "-m", "orchestrator", "_reconcile", address]
    with log.open("wb") as file:
        process = subprocess.Popen(argv, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_servers_outside_are_watched_though_the_cluster_does_not_answer(within, tmp_path):
    """One dies while the service runs: `endpoints` says so and why, and the other is well."""
    with ExitStack() as far, listing(["llama"]) as near:
        dying = far.enter_context(listing(["llama"]))
        for address in (dying, near):
            done = within("deploy", "chat", "--address", address, "--model", "llama")
            assert done.returncode == 0, done.stderr

        def seen() -> list[tuple[str, str]]:
            (found,) = json.loads(within("endpoints", "--json").stdout)
            return [(one["state"], one["reason"]) for one in found["revisions"]]

        log = tmp_path / "reconcile.log"
        with reconciling(free_address(), log) as process:
            far.close()
            assert wait(lambda: "chat.r1 gets nothing" in log.read_text(), 60.0), log.read_text()
            assert process.poll() is None, log.read_text()
        (state, why), second = seen()
        assert state == "broken"
        assert "refused" in why
        assert second == ("ready", "")
        assert f"chat.r1 gets nothing while others can answer: {why}" in log.read_text()


@pytest.mark.usefixtures("within")
def test_a_switch_that_fails_is_told_of_its_endpoint_once_and_leaves_no_process(
    capsys: pytest.CaptureFixture[str],
) -> None:
    moves = Moves(print)
    moves.move("nope", "ascend")
    ((process, _, _),) = moves._started
    failed: list[str] = []
    assert wait(lambda: failed.extend(moves.failed()) or failed, 60.0)
    assert failed == ["nope"]
    assert not moves._started
    assert not Path(f"/proc/{process.pid}").exists(), "it was waited for"
    assert list(moves.failed()) == []
    assert "switch for nope ended with exit code 102" in capsys.readouterr().out
