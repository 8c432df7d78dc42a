"""What an endpoint takes in the place of its model, and what is refused with one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.core.endpoints.life import RevisionAdded, RevisionReady, SharesMoved
from orchestrator.core.errors import ConfigError
from orchestrator.core.spec.outside_servers import Outside
from orchestrator.core.trust.model_versions import ModelVersion
from orchestrator.service.updating import model_of
from tests.build import deployment

TAGS = {
    "artifact.uri": "file:///artifacts/new",
    "artifact.digest": "1" * 64,
    "format": "bf16",
    "parity": "passed",
}


def version(**tags: str) -> ModelVersion:
    return ModelVersion(name="chat", number=2, tags={**TAGS, **tags})


@pytest.mark.parametrize("parity", ["passed", "elsewhere", "not compared"])
def test_a_version_of_the_same_format_and_storage_is_taken(parity: str) -> None:
    model = model_of(version(parity=parity), deployment("chat"))
    assert (model.uri, model.digest) == ("file:///artifacts/new", "1" * 64)


@pytest.mark.parametrize(
    ("tags", "line"),
    [
        ({"artifact.uri": ""}, "version 2 of 'chat' names no artifact"),
        ({"artifact.digest": ""}, "version 2 of 'chat' names no artifact"),
        ({"format": "fp8"}, "version 2 of 'chat' is fp8, and chat.r1 serves bf16"),
        ({"artifact.uri": "s3://far/new"}, "'s3://far/new', and chat.r1 reads from"),
        (
            {"artifact.uri": "file:///artifacts2/new"},
            "and chat.r1 reads from 'file:///artifacts/'",
        ),
        ({"parity": "failed", "parity.reason": "kl_mean is 3"}, "parity stage: kl_mean is 3"),
    ],
)
def test_what_the_replicas_can_not_take_is_said_before_any_is_asked(
    tags: dict[str, str], line: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        model_of(version(**tags), deployment("chat"))
    assert line in str(refused.value)


def test_an_endpoint_that_is_not_served_has_no_weights(within, tmp_path: Path) -> None:
    done = within("update", "chat", "chat", "2")
    assert (done.returncode, done.stderr) == (
        102,
        "error: no endpoint 'chat' is served; served: none\n",
    )
    store = wiring.database(tmp_path / ".orchestrator")
    far = RevisionAdded(1, outside=Outside(address="http://far/v1", model="m"))
    events = [far, RevisionReady(1), SharesMoved({1: 100}, "first")]
    store.follow(store.endpoint("chat"), events, 1.0)
    done = within("update", "chat", "chat", "2")
    assert done.returncode == 2
    assert "r1 of 'chat' is outside: its weights are somebody else's" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_version_is_a_number(within) -> None:
    done = within("update", "chat", "chat", "latest")
    assert done.returncode == 2
    assert "latest" in done.stderr.splitlines()[-1]
