"""The ready-made views, opened in a browser as `orchestrator ui` opens them.

The format of a saved view is MLflow's own and not documented: this is the test that notices when
a new MLflow reads it differently.
"""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from jobs.evaluation import answer_table
from orchestrator.adapters import mlflow_server
from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.database import SqlDatabase
from orchestrator.adapters.mlflow_tracker import MlflowTracker, views
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    RetryScheduled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    StageFailed,
)
from orchestrator.core.settings import TrackingSettings
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Accelerator, Pool, Role
from orchestrator.core.spec.plan import Plan, PlannedStage
from orchestrator.core.spec.stages import Stage
from orchestrator.messages import Points
from orchestrator.output_reader import OutputReader
from tests.fakes import FakeArtifacts

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is missing"),
    pytest.mark.slow,
]
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=2400,1100"),
)
# Rows of what the page draws as a table, whichever elements it draws it with.
CELLS = """
return [...document.querySelectorAll('tr, [role=row]')].map(
    row => [...row.querySelectorAll('td, [role=cell], [role=gridcell]')].map(
        cell => cell.innerText.trim()))
"""
SECONDS_TO_SHOW = 60
SEEN_PANEL = "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1"
EXPERIMENT = "views"
NOW = 1_795_000_000.0
CHIP = Accelerator(name="H100", vendor="Nvidia", device="cuda", backend="nccl")
POOLS = {
    name: Pool(name=name, accelerator=CHIP, emulation=Emulation()) for name in ("nvidia", "ascend")
}
FAILURE = Failure(
    kind=FailureKind.INTERCONNECT, evidence="EI0002: Notify register times out", step=40
)

ANSWERS = [
    {"question": "17 + 25", "expected": "42", "answer": "forty, two", "right": False},
    {"question": "<b>2</b>", "expected": "4", "answer": 'a "four"\nand more', "right": True},
]


class Browser:
    """A headless Chromium, asked by the WebDriver protocol."""

    def __init__(self, port: int, profile: Path) -> None:
        self._port = port
        flags = [*FLAGS, f"--user-data-dir={profile}"]
        options = {"goog:chromeOptions": {"binary": CHROMIUM, "args": flags}}
        answer = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": options}})
        assert isinstance(answer, dict)
        self._session = f"/session/{answer['sessionId']}"

    def open(self, address: str) -> None:
        self._ask("POST", f"{self._session}/url", {"url": "about:blank"})
        self._ask("POST", f"{self._session}/url", {"url": address})

    def run(self, script: str) -> object:
        body = {"script": script, "args": []}
        return self._ask("POST", f"{self._session}/execute/sync", body)

    def text(self) -> str:
        """Return what stands on the page, its white space evened out."""
        return " ".join(str(self.run("return document.body.innerText")).split())

    def wait_for(self, *words: str) -> str:
        """Return what stands on the page as soon as all of `words` do."""
        end = time.monotonic() + SECONDS_TO_SHOW
        while missing := [word for word in words if word not in self.text()]:
            assert time.monotonic() < end, f"{missing!r} not on the page: {self.text()}"
            time.sleep(0.2)  # noqa: TID251 - a browser has no clock of ours
        return self.text()

    def screenshot(self, path: Path) -> None:
        picture = self._ask("GET", f"{self._session}/screenshot")
        path.write_bytes(base64.b64decode(str(picture)))

    def quit(self) -> None:
        self._ask("DELETE", self._session)

    def _ask(self, method: str, path: str, body: object = None) -> object:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=90)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer


@pytest.fixture(scope="module")
def driver() -> Iterator[int]:
    """Return the port of a chromedriver that runs."""
    argv = [str(DRIVER), "--port=0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = next(line for line in process.stdout if "successfully on port" in line)
        yield int(line.rstrip(".\n").rsplit(" ", 1)[1])
        process.terminate()


@pytest.fixture(scope="module")
def pages(mlflow_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the addresses of the views, on a server that shows three runs."""
    uri, logs = mlflow_server.up(mlflow_home), tmp_path_factory.mktemp("views")
    for number, train in enumerate((("nvidia",), ("ascend", "nvidia"), ("ascend",)), start=1):
        _show(uri, f"r2-{number}", train, logs)
    return dict(views.links(uri, EXPERIMENT))


@pytest.fixture
def browser(driver: int, pages: dict[str, str], tmp_path: Path) -> Iterator[Browser]:
    """Return a browser that has seen MLflow before: the first time, a panel hides columns."""
    opened = Browser(driver, tmp_path / "profile")
    opened.open(f"{pages['Review'].partition('/#/')[0]}/version")
    opened.run(f"localStorage.setItem({SEEN_PANEL!r}, 'true')")
    yield opened
    opened.quit()


def _show(uri: str, name: str, train: tuple[str, ...], folder: Path) -> None:
    """Show a run that fails on each pool of `train` but the last; on `ascend` alone, for good."""
    store = SqlDatabase(f"sqlite:///{folder / 'events.db'}")
    stage = Stage(name="pretrain", role=Role.TRAIN, job="jobs.pretrain.pretrain")
    planned = PlannedStage(stage=stage, pools=train)
    header = RunHeader(
        run=name,
        plan=Plan(pipeline="r2", fleet="local", stages=(planned,), pools=POOLS),
        created=NOW,
    )
    store.create(header, NOW)
    events = list(_events(train))
    store.append(name, 1, events, NOW)
    values = [Points(step, {"loss": 4 / step}, NOW + step) for step in range(1, 40)]
    store.add_points(name, "pretrain", 1, values)
    store.note_report(name, ("pretrain", 1), answer_table.NAME, answer_table.table(ANSWERS))
    settings = TrackingSettings(experiment=EXPERIMENT, system_seconds=0)
    output = OutputReader(store, FakeArtifacts, name)
    tracker = MlflowTracker(
        store, name, uri=uri, settings=settings, clock=SystemClock(), output=output
    )
    assert tracker.close(60)
    store.close()


def _events(train: tuple[str, ...]) -> Iterator[Event]:
    yield RunStarted(1)
    for number, pool in enumerate(train, start=1):
        yield AttemptStarted("pretrain", number, pool)
        if pool == "nvidia":
            yield AttemptSucceeded("pretrain", number, None, {"accuracy": 0.75})
            yield RunSucceeded()
        else:
            yield AttemptFailed("pretrain", number, FAILURE)
            yield from _after(train[number:])


def _after(pools: tuple[str, ...]) -> Iterator[Event]:
    if pools:
        yield RetryScheduled("pretrain", pools[0], NOW, f"interconnect: fall back to {pools[0]}")
    else:
        yield StageFailed("pretrain", "interconnect: no pool left")
        yield RunFailed("stage 'pretrain' failed on pool 'ascend'")


def test_review_shows_every_run_with_its_state_and_its_pools(
    pages: dict[str, str], browser: Browser
) -> None:
    browser.open(pages["Review"])
    page = browser.wait_for("r2-1", "r2-2", "r2-3", "3 matching runs")
    for head in ("state", "summary", "pools", "pretrain/accuracy"):
        assert head in page
    assert "Failed in pretrain on ascend at step 40: interconnect, EI0002" in page
    assert "train ascend → nvidia" in page
    assert "0.75" in page


def test_failures_shows_every_failed_attempt_with_its_reason(
    pages: dict[str, str], browser: Browser
) -> None:
    browser.open(pages["Failures"])
    page = browser.wait_for("2 matching runs", "pretrain 1 on ascend")
    for head in ("failure.kind", "failure.pool", "failure.step", "decision", "failure.evidence"):
        assert head in page
    assert "EI0002: Notify register times out" in page
    assert "interconnect: fall back to nvidia" in page
    assert "give up: interconnect: no pool left" in page


def test_curves_draws_the_loss_of_all_runs_first(pages: dict[str, str], browser: Browser) -> None:
    browser.open(pages["Curves"])
    page = browser.wait_for("r2-1", "r2-2", "r2-3", "Training (1)", "pretrain/loss")
    assert page.index("pretrain/loss") < page.index("Results (1)") < page.index("Runs (4)")


def test_the_answers_of_an_evaluation_are_drawn_as_a_table(
    pages: dict[str, str], browser: Browser
) -> None:
    uri = pages["Review"].partition("/#/")[0]
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment
    found = client.search_runs(
        [experiment.experiment_id], "attributes.run_name = 'pretrain 1 on nvidia'"
    )
    shown = f"{uri}/#/experiments/{experiment.experiment_id}/runs/{found[0].info.run_id}"
    browser.open(f"{shown}/artifacts/{answer_table.NAME}")
    browser.wait_for("question", "expected", "17 + 25", "forty, two", "<b>2</b>")
    cells = browser.run(CELLS)
    assert ["17 + 25", "42", "forty, two", "False"] in cells, cells
