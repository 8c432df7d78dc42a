"""What MLflow refuses for good, and passes that break: nothing waits or stands still for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from orchestrator.adapters.mlflow_tracker import MlflowTracker
from orchestrator.core.settings import TrackingSettings
from orchestrator.ports import Point
from tests.adapters.mlflow_tracker.conftest import FAST, Tale, TestClock
from tests.adapters.mlflow_tracker.seen import Seen
from tests.memory import MemoryStore

SECONDS = 60.0


class Refusing(BaseHTTPRequestHandler):
    """An MLflow server that knows its experiment and takes no run."""

    def do_GET(self) -> None:
        found = {"experiment_id": "1", "lifecycle_stage": "active", "tags": []}
        self.answer(200, {"experiment": found})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("runs/create"):
            said = "Both 'run_name' argument and 'mlflow.runName' tag are specified"
            self.answer(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": said})
        else:
            self.answer(200, {})

    def answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def refusing() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def tracked(story: Tale, uri: str, experiment: str = "e") -> MlflowTracker:
    return MlflowTracker(
        story.store,
        story.name,
        uri=uri,
        settings=TrackingSettings(experiment=experiment, system_seconds=0.0),
        clock=TestClock(),
        output=story.output,
        pace=FAST,
    )


def test_a_run_that_is_refused_for_good_is_given_up_with_one_line(
    refusing: str, caplog: pytest.LogCaptureFixture
) -> None:
    story = Tale()
    story.to_the_end(steps=3)
    tracker = tracked(story, refusing)
    assert not tracker.close(SECONDS)
    assert tracker.given_up
    said = [record.message for record in caplog.records]
    assert len(said) == 2
    assert "INVALID_PARAMETER_VALUE" in said[0]
    assert said[1].startswith("MLflow gets no more of this run")


class Breaking(MemoryStore):
    """A store whose points can't be read at first."""

    left = 3

    def points(self, run: str, after: int = 0, limit: int = 10_000) -> Sequence[Point]:
        if self.left:
            self.left -= 1
            raise TypeError("'>' not supported between instances of 'bytes' and 'int'")
        return super().points(run, after, limit)


def test_a_pass_that_breaks_is_said_once_and_the_next_begins_anew(
    tale: Callable[..., Tale],
    uri: str,
    experiment: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    story = tale()
    store = Breaking()
    store.__dict__.update(story.store.__dict__)
    story.store = store
    tracker = tracked(story, uri, experiment)
    while store.left:
        tracker.notify()
    story.to_the_end(steps=5)
    assert tracker.close(SECONDS)
    assert Seen(uri, experiment).runs["r2-1"].info.status == "FINISHED"
    assert caplog.text.count("MLflow does not get this run at present: TypeError") == 1


def test_rows_that_are_no_points_are_left_out_and_the_others_are_shown(
    tale: Callable[..., Tale],
    uri: str,
    experiment: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    story = tale()
    story.succeed("data")
    known = {"run": story.name, "stage": "data", "attempt": 1, "value": 1.0, "at": story.at}
    bad = [Point(id=n, key="x", step=b"\x01", **known) for n in (1, 2)]  # type: ignore[arg-type]
    stray = Point(id=3, key="x", step=1, **{**known, "stage": "nowhere"})  # type: ignore[arg-type]
    story.store.kept_points.extend([*bad, stray, Point(id=4, key="x", step=4, **known)])  # type: ignore[arg-type]
    story.finish_from_training(steps=5)
    assert tracked(story, uri, experiment).close(SECONDS)
    assert Seen(uri, experiment).count("r2-1/data/1", "x") == 1
    assert caplog.text.count("points that are none are left out") == 1
