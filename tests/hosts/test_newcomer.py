"""What `docs/hosts.md` says is typed on three hosts, word for word, until a model answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.adapters.rayqueries.chip_numbering import NUMBERED
from orchestrator.supervisor.record import wait
from tests.hosts.namespaces import ROOT, Host, Process, several_hosts
from tests.hosts.services import BUCKET, MLFLOW, NODES, Servers, of_database
from tests.hosts.site import CHIP, RESOURCES

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(1800)]
PAGE = (ROOT / "docs/hosts.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```sh (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^`(\S+)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
HOSTS = ("head", "hopper-0", "atlas-0")
# The page has chips; here a CPU plays each, which Ray does not count by itself.
CHIPS = {"h100": "hopper", "ascend_910c": "atlas"}
UP = "Ray runtime started."
TOKEN = "7" * 64
SECONDS = 600.0


class Newcomer:
    """Somebody who types what the page says."""

    def __init__(self, hosts: dict[str, Host], secrets: dict[str, str]) -> None:
        """Know the hosts by the page's names; `secrets` stand for its words in capitals."""
        self._hosts, self._secrets, self.answers = hosts, secrets, dict[str, str]()
        self.key = ""

    def type(self, where: str, line: str) -> None:
        """Type a line on a host; what goes on in the background is waited for until it is up."""
        host = self._hosts[where]
        typed = self._with_chips(where, line).replace("head:", self._secrets["head:"])
        argv = ("bash", "-c", f". ./cluster.env; {typed}")
        env = {"MLFLOW_DATABASE": self._secrets["MLFLOW_DATABASE"], **self._given()}
        if line.endswith("&"):
            name = next(word for word in line.split() if "=" not in word)
            self._wait(host, name, host.start(*argv, name=name, **env))
            return
        done = host.run(*argv, seconds=SECONDS, **env)
        assert done.returncode == 0, f"{where}: {line}\n{done.stdout}{done.stderr}"
        self.answers[line] = done.stdout
        if line.startswith("orchestrator keys add"):
            self.key = done.stdout.strip()

    def refused(self, where: str, line: str) -> str:
        """Type a line on a host that is refused; return the one line that says why."""
        done = self._hosts[where].run("bash", "-c", f". ./cluster.env; {line}", seconds=SECONDS)
        assert done.returncode == 1, done.stdout + done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    def shown(self) -> list[str]:
        """Return the secrets that whoever lists the processes of a host sees."""
        numbers = [pid for host in self._hosts.values() for pid in host.processes()]
        lines = [_command_line(Path(f"/proc/{number}")) for number in numbers]
        assert any("mlflow" in line for line in lines)
        names = ("PASSWORD", "SECRET ", "=TOKEN ", "=KEY")
        secrets = [self._secrets[name].strip("= ") for name in names]
        return [line for line in lines if any(secret in line for secret in secrets)]

    def _given(self) -> dict[str, str]:
        quiet = {name: NODES[name] for name in ("RAY_memory_monitor_refresh_ms", NUMBERED)}
        return {**quiet, **({"ORCHESTRATOR_API_KEY": self.key} if self.key else {})}

    def _with_chips(self, where: str, line: str) -> str:
        pool = where.partition("-")[0]
        if not line.startswith("ray start") or pool not in RESOURCES:
            return line.removesuffix("&")
        chips = f"""--resources='{{"{RESOURCES[pool]}": 2}}'"""
        return f"{line.removesuffix('&')} --num-cpus=4 {chips}"

    def _wait(self, host: Host, name: str, process: Process) -> None:
        def up() -> bool:
            return UP in process.printed() if name == "ray" else host.listens(MLFLOW)

        wait(lambda: up() or not process.running, 300.0, tick=0.2)
        assert up(), process.printed()


def _command_line(process: Path) -> str:
    with suppress(OSError):  # it has ended
        return (process / "cmdline").read_text(errors="replace")
    return ""


@pytest.fixture
def newcomer(logs: Path) -> Iterator[Newcomer]:
    """Three hosts, with an empty database and an empty bucket on the first."""
    with several_hosts(3, logs) as network:
        hosts = dict(zip(HOSTS, network.hosts, strict=True))
        servers = Servers()
        url = servers.postgres(hosts["head"])
        bucket = servers.s3(hosts["head"])
        assert BUCKET in PAGE
        secrets = {
            "PASSWORD": url.split(":")[2].partition("@")[0],
            "SECRET ": "of-the-hosts-of-this-test ",
            "=TOKEN ": f"={TOKEN} ",
            "=ID": f"={bucket['AWS_ACCESS_KEY_ID']}",
            "=KEY": f"={bucket['AWS_SECRET_ACCESS_KEY']}",
            "head:": f"{hosts['head'].address}:",  # there is no DNS here
            "MLFLOW_DATABASE": of_database(url, "mlflow"),
        }
        for host in hosts.values():
            for path, text in FILE.findall(PAGE):
                told = text
                for name, value in secrets.items():
                    told = told.replace(name, value)
                host.write(path, told)
        for chip, pool in CHIPS.items():
            text = CHIP.format(name=chip, vendor=f"maker of {pool}", resource=RESOURCES[pool])
            hosts["head"].write(f"my/accelerator/{chip}.yaml", text)
        yield Newcomer(hosts, secrets)


def test_three_hosts_get_from_nothing_to_a_served_model(newcomer: Newcomer) -> None:
    for where, block in BLOCK.findall(PAGE):
        for line in block.splitlines():
            newcomer.type(where, line)
    assert 'orchestrator ask "What is 17 + 25?"' in newcomer.answers
    assert "succeeded" in newcomer.answers["orchestrator status"]
    assert newcomer.shown() == []
    for token in ("", f"RAY_AUTH_TOKEN={TOKEN.replace('7', '8')}"):
        refused = newcomer.refused("atlas-0", f"unset RAY_AUTH_TOKEN; {token} orchestrator pools")
        assert "token" in refused, "another one, and none"
