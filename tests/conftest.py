"""What all tests share: the command as a user runs it, and one MLflow server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from orchestrator.adapters.database import SqlDatabase
from orchestrator.cli import main
from orchestrator.supervisor import orphans
from tests import processes
from tests.postgres import PostgresServer
from tests.postgres import server as postgres_server

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

Command = Callable[..., "subprocess.CompletedProcess[str]"]
SECONDS = 180
CONFIGURED = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "ORCHESTRATOR_HOME", "ORCHESTRATOR_DATABASE")


# Fixtures that start services. Their tests share those and take turns; all others run beside them.
SERVICES = {"workplace", "mlflow_home", "ray_home", "place"}

BY_HAND = ("chaos", "hosts", "vllm", "llmcompressor", "torchtitan")


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is run by hand, unless it is asked for; `-m "not ray"` does not ask.

    Those that start services get the marker `services`.
    """
    for item in items:
        if item.get_closest_marker("ray") or SERVICES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.services)
    for marker in BY_HAND:
        if marker not in config.option.markexpr:
            by_hand = [item for item in items if item.get_closest_marker(marker)]
            config.hook.pytest_deselected(items=by_hand)
            items[:] = [item for item in items if item not in by_hand]


@pytest.fixture(scope="session", autouse=True)
def _nothing_outlives_the_tests() -> Iterator[None]:
    """Have what they start end with them, also where they are killed."""
    guard = orphans.follow(processes.MARK)
    yield
    if guard:
        guard.release()


@pytest.fixture(scope="session", autouse=True)
def _a_cache_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have commands keep nothing where the user's own do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def environment(_a_cache_of_their_own: None) -> dict[str, str]:
    """The environment without what would lead a command to somebody's cluster."""
    kept = {name: value for name, value in os.environ.items() if name not in CONFIGURED}  # noqa: TID251 - a test's own
    root = str(Path(__file__).parent.parent)
    return {**kept, "PYTHONPATH": root, "PYTHONWARNINGS": "ignore"}


def assert_refused(done: subprocess.CompletedProcess[str], code: int, line: str) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    assert line in done.stderr
    assert "Traceback" not in done.stderr


class Workplace:
    """A working folder in which a user types commands; its home is in it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """Begin in `folder`."""
        self.folder = folder
        self.environment = environment

    def run(self, *words: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return self._run("-m", "orchestrator", *words, seconds=seconds)

    def python(self, text: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a text of Python to its end."""
        return self._run("-c", text, seconds=seconds)

    def logs(self, run: str = "") -> str:
        """Return what the attempts of `run`, or of all runs, have written so far."""
        database = self.folder / ".orchestrator/events.db"
        if not database.exists():
            return ""
        with closing(SqlDatabase(database)) as store:
            runs = [run] if run else [header.run for header in store.runs()]
            return "".join(chunk.text for name in runs for chunk in store.log_chunks(name))

    def _run(self, *words: str, seconds: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )


@pytest.fixture
def orchestrator(tmp_path: Path, environment: dict[str, str]) -> Command:
    """The command `orchestrator`, in an empty working folder."""
    return Workplace(tmp_path, environment).run


@pytest.fixture
def within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """The same within this process, for what ends at once and starts nothing: a start is long."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        try:
            code = main(words)
        except SystemExit as end:
            code = int(end.code or 0)
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    monkeypatch.chdir(tmp_path)
    for name in CONFIGURED:
        monkeypatch.delenv(name, raising=False)
    return run


@pytest.fixture(scope="module")
def workplace(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[Workplace]:
    """A working folder for the tests of a module; what they left running is stopped."""
    made = Workplace(tmp_path_factory.mktemp("workplace"), environment)
    yield made
    made.run("down", "--yes")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Return a PostgreSQL server of our own, where it is installed."""
    with postgres_server() as running:
        yield running


@pytest.fixture(scope="session")
def mlflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a home whose managed MLflow server runs; tests take experiments of their own."""
    from orchestrator.adapters import mlflow_server

    home = tmp_path_factory.mktemp("mlflow")
    mlflow_server.up(home)
    yield home
    mlflow_server.down(home)


@pytest.fixture(scope="session")
def ray_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a home whose managed Ray cluster runs, with the pools of `tests.clusters`."""
    from orchestrator.adapters.raycluster import managed_ray
    from orchestrator.core.settings import ClusterSettings
    from tests.clusters import POOLS

    home = tmp_path_factory.mktemp("ray")
    managed_ray.up(home, POOLS, ClusterSettings())
    yield home
    managed_ray.down(home)


@pytest.fixture(scope="module")
def ray_address(ray_home: Path) -> Iterator[str]:
    """Return the address of that cluster; this process has joined it."""
    import ray

    import tests.workers
    from orchestrator.adapters.raycluster import access, managed_ray

    found = managed_ray.find(ray_home)
    assert found is not None
    access.connect(found.address)
    ray.cloudpickle.register_pickle_by_value(tests.workers)
    yield found.address
    ray.cloudpickle.unregister_pickle_by_value(tests.workers)
    assert access.leave()
