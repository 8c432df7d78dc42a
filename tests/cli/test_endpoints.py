"""Endpoints by the command line: revisions outside, shares of traffic, keys."""

from __future__ import annotations

import json

import pytest

FAR = ("--address", "http://far.example:9000/v1", "--model", "llama")


def test_servers_outside_are_revisions_that_share_traffic(within):
    assert "No endpoint is served" in within("endpoints").stdout
    first = within("deploy", "chat", *FAR)
    assert first.returncode == 0, first.stderr
    assert within("deploy", "chat", *FAR).returncode == 0
    (found,) = json.loads(within("endpoints", "--json").stdout)
    assert found["shares"] == {"r1": 100}
    assert [one["state"] for one in found["revisions"]] == ["ready", "ready"]

    moved = within("traffic", "chat", "r1=90,r2=10", "shadow=r2", "overflow=r2")
    assert moved.returncode == 0, moved.stderr
    assert "10 % shadow overflow" in moved.stdout
    back = within("rollback", "chat")
    assert back.stdout == "All traffic of chat goes to r1 on http://far.example:9000/v1.\n"
    (found,) = json.loads(within("endpoints", "--json").stdout)
    assert (found["shares"], found["shadow"]) == ({"r1": 100}, None)
    assert within("undeploy", "chat", "r2").returncode == 0
    reasons = [move["reason"] for move in found["moves"]]
    assert reasons[0] == "the first revision"
    assert reasons[-1].startswith("rolled back by ")
    assert within("undeploy", "chat").stdout == "Endpoint chat answers no more.\n"
    assert "No endpoint is served" in within("endpoints").stdout


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("traffic", "chat", "r1=fifty"), 2, "'r1=fifty' are no shares; write r1=90 r2=10"),
        (("traffic", "chat", "r1=50"), 1, "r1 is unknown, and only ready revisions"),
        (("rollback", "chat"), 102, "no endpoint 'chat' is served; served: none"),
        (("switch", "chat", "pool=ascend"), 102, "no endpoint 'chat' (served: none)"),
        (("switch", "chat"), 2, "nothing is to change; write pool=POOL"),
        (("deploy", "chat", "--address", "far:9000"), 2, "'far:9000' is no address of a server"),
        (("deploy", "nothing"), 102, "no run 'nothing'"),
        (("ask", "2 + 2?"), 102, "no endpoint is served; launch a pipeline"),
        (("undeploy", "chat"), 102, "no endpoint 'chat'; there are: none"),
        (("keys", "add"), 2, "no name is given; keys add NAME"),
        (("keys", "revoke", "ann"), 102, "no key 'ann'; there are: none"),
    ],
)
def test_a_mistake_gets_one_line(within, words, code, line):
    done = within(*words)
    assert done.returncode == code, done.stdout + done.stderr
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_key_is_shown_once_and_kept_as_a_hash(within, tmp_path):
    made = within("keys", "add", "ann", "--model", "chat", "--requests", "60", "--days", "1")
    secret = made.stdout.strip()
    assert secret.startswith("sk-")
    listed = within("keys").stdout
    assert "ann" in listed
    assert "in 23h 59m" in listed
    assert secret not in listed
    database = (tmp_path / ".orchestrator/events.db").read_bytes()
    assert secret.encode() not in database
    assert json.loads(within("keys", "--json").stdout)[0]["requests"] == 60
    assert within("keys", "revoke", "ann").returncode == 0
    assert "the endpoints are open" in within("keys").stdout
