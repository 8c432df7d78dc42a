"""MLflow runs of runs that are forgotten go, attempts too; what a model came from stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.adapters.mlflow_tracker import MlflowTracker, erase
from orchestrator.core.errors import TrackingError
from tests.adapters.mlflow_tracker.conftest import Tale
from tests.adapters.mlflow_tracker.seen import Seen

SECONDS = 240.0
Track = Callable[..., MlflowTracker]
ONE = ["r2-1", "r2-1/data/1", "r2-1/pretrain/1"]


@pytest.fixture
def shown(tale: Callable[..., Tale], track: Track) -> None:
    """Two runs, each shown with two attempts."""
    for name in ("r2-1", "r2-2"):
        story = tale(name)
        story.succeed("data")
        story.begin("pretrain")
        assert track(story).close(SECONDS)


@pytest.mark.usefixtures("shown")
def test_a_run_goes_with_its_attempts_and_no_other_does(uri: str, experiment: str) -> None:
    both = set(Seen(uri, experiment).runs)
    assert erase(uri, experiment, ["r2-1", "never shown"], dry=True) == len(ONE)
    assert set(Seen(uri, experiment).runs) == both, "a dry one only counts"
    assert erase(uri, experiment, ["r2-1"], dry=False) == len(ONE)
    assert set(Seen(uri, experiment).runs) == both - set(ONE)
    assert erase(uri, experiment, ["r2-1"], dry=False) == 0


@pytest.mark.usefixtures("shown")
def test_all_of_a_run_stays_whose_attempt_somebody_registered_a_model_from(
    uri: str, experiment: str
) -> None:
    seen, client = Seen(uri, experiment), MlflowClient(uri)
    source = seen.runs["r2-1/pretrain/1"].info.run_id
    model = client.create_logged_model(seen.experiment.experiment_id, source_run_id=source)
    client.create_registered_model(f"own-{experiment}")
    place, name = f"models:/{model.model_id}", f"own-{experiment}"
    client.create_model_version(name, place, source, model_id=model.model_id)
    assert erase(uri, experiment, ["r2-1", "r2-2"], dry=False) == len(ONE)
    assert set(Seen(uri, experiment).runs) == set(ONE)


@pytest.mark.parametrize("tag", ["run", "registered_by"])
@pytest.mark.usefixtures("shown")
def test_what_a_version_says_that_it_was_made_by_stays(
    uri: str, experiment: str, tag: str
) -> None:
    seen, client = Seen(uri, experiment), MlflowClient(uri)
    model = client.create_logged_model(seen.experiment.experiment_id)
    client.create_registered_model(f"ours-{experiment}")
    place, name = f"models:/{model.model_id}", f"ours-{experiment}"
    client.create_model_version(name, place, tags={tag: "r2-1"}, model_id=model.model_id)
    assert erase(uri, experiment, ["r2-1"], dry=False) == 0
    client.delete_registered_model(f"ours-{experiment}")
    assert erase(uri, experiment, ["r2-1"], dry=False) == len(ONE)


def test_where_nothing_was_ever_shown_nothing_goes(uri: str) -> None:
    assert erase(uri, "no such experiment", ["r2-1"], dry=False) == 0


def test_a_server_that_is_away_is_told() -> None:
    with pytest.raises(TrackingError):
        erase("http://127.0.0.1:9", "any", ["r2-1"], dry=False)
