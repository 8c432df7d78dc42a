"""Endpoints from Python: shared, given back and taken away, as from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import orchestrator as o
from orchestrator.core.endpoints.life import RevisionState
from orchestrator.core.errors import (
    ConfigError,
    NotFoundError,
    ServingError,
    TransitionError,
)
from tests.conftest import CONFIGURED
from tests.listing import listing


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[o.LiveEndpoint]:
    """An endpoint of two servers outside, of which the first has all traffic."""
    monkeypatch.chdir(tmp_path)
    for name in CONFIGURED:
        monkeypatch.delenv(name, raising=False)
    with listing(["llama"]) as address:
        for _ in range(2):
            assert o.deploy_outside("chat", o.Outside(address=address, model="llama")) == ()
        yield o.endpoint("chat")


def test_traffic_is_shared_by_numbers_and_given_back(chat: o.LiveEndpoint) -> None:
    assert chat.shares == {"r1": 100}
    assert {r.state for r in chat.revisions.values()} == {RevisionState.READY}
    chat.traffic({1: 90, 2: 10}, shadow=2, overflow=2)
    assert chat.shares == {"r1": 90, "r2": 10}
    assert (chat.shadow, chat.overflow) == ("r2", "r2")
    chat.traffic(shadow=None)
    assert (chat.shares, chat.shadow, chat.overflow) == ({"r1": 90, "r2": 10}, None, "r2")
    assert chat.rollback().shares == {"r1": 100}
    with pytest.raises(TransitionError, match="revisions: r1"):
        chat.traffic({7: 100})


def test_an_endpoint_is_taken_away_by_revision_and_whole(chat: o.LiveEndpoint) -> None:
    assert [endpoint.name for endpoint in o.live_endpoints()] == ["chat"]
    with pytest.raises(ConfigError, match="r1 has all traffic"):
        chat.undeploy(1)
    assert chat.undeploy(2) == "Revision r2 of chat is retired."
    assert chat.undeploy() == "Endpoint chat answers no more."
    assert o.live_endpoints() == []
    with pytest.raises(NotFoundError, match="no endpoint 'chat' is served"):
        o.endpoint("chat")


def test_what_somebody_else_serves_is_neither_moved_nor_updated(chat: o.LiveEndpoint) -> None:
    with pytest.raises(NotFoundError, match="has no revision of ours"):
        chat.switch("pool=nvidia")
    with pytest.raises(NotFoundError, match="has no revision of ours"):
        chat.deploy("pool=nvidia")
    with pytest.raises(ConfigError, match="its weights are somebody else's"):
        chat.update("chat", 2)
    with pytest.raises(NotFoundError, match="no run 'nothing'"):
        o.deploy("nothing")


def test_without_a_gateway_nobody_is_asked(chat: o.LiveEndpoint) -> None:
    with pytest.raises(ServingError):
        print(chat.url)
    with pytest.raises(ServingError):
        chat.ask("2 + 2?")
    with pytest.raises(ServingError):
        next(chat.stream("2 + 2?"))


def test_a_notebook_shows_an_endpoint_as_a_table(chat: o.LiveEndpoint) -> None:
    assert "ready" in chat._repr_mimebundle_([], [])["text/html"]
