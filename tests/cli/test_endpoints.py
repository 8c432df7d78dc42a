"""Endpoints by the command line: revisions outside, shares of traffic, keys."""

from __future__ import annotations

import json
import sqlite3

import pytest

from orchestrator import wiring
from orchestrator.core.endpoints.metering import Occupancy, Usage, day_of
from tests.conftest import assert_refused
from tests.listing import listing
from tests.ports import free_address


@pytest.fixture
def far():
    """What names a server outside that is there."""
    with listing(["llama"]) as address:
        yield ("--address", address, "--model", "llama")


def test_servers_outside_are_revisions_that_share_traffic(within, far):
    assert "No endpoint is served" in within("endpoints").stdout
    first = within("deploy", "chat", *far)
    assert first.returncode == 0, first.stderr
    assert within("deploy", "chat", *far).returncode == 0
    (found,) = json.loads(within("endpoints", "--json").stdout)
    assert found["shares"] == {"r1": 100}
    assert [one["state"] for one in found["revisions"]] == ["ready", "ready"]

    moved = within("traffic", "chat", "r1=90,r2=10", "shadow=r2", "overflow=r2")
    assert moved.returncode == 0, moved.stderr
    assert "10 % shadow overflow" in moved.stdout
    back = within("rollback", "chat")
    assert back.stdout == f"All traffic of chat goes to r1 on {far[1]}.\n"
    (found,) = json.loads(within("endpoints", "--json").stdout)
    assert (found["shares"], found["shadow"], found["overflow"]) == ({"r1": 100}, "r2", "r2")
    assert within("traffic", "chat", "shadow=none").returncode == 0
    (found,) = json.loads(within("endpoints", "--json").stdout)
    assert (found["shares"], found["shadow"], found["overflow"]) == ({"r1": 100}, None, "r2")
    assert within("undeploy", "chat", "r2").returncode == 0
    reasons = [move["reason"] for move in found["moves"]]
    assert reasons[0] == "the first revision"
    assert reasons[-2].startswith("rolled back by ")
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
        (
            ("deploy", "Chat/x", "--address", "http://a/v1"),
            2,
            "'Chat/x' is no name of an endpoint",
        ),
        (("undeploy", "chat"), 102, "no endpoint 'chat'; there are: none"),
        (("keys", "add"), 2, "no name is given; keys add NAME"),
        (("keys", "require"), 2, "write keys require on, or keys require off"),
        (("keys", "require", "of"), 2, "'of' says not whether keys are needed"),
        (("keys", "revoke", "ann"), 102, "no key 'ann'; there are: none"),
    ],
)
def test_a_mistake_gets_one_line(within, words, code, line):
    done = within(*words)
    assert_refused(done, code, line)
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


def test_a_key_is_changed_rotated_and_shown(within):
    assert within("keys", "add", "ann", "budget=5", "parallel=2").returncode == 0
    changed = within("keys", "set", "ann", "requests=60", "parallel=none", "models=chat,far")
    assert changed.stderr == "warning: no endpoint 'chat', 'far' yet\n"
    shown = json.loads(within("keys", "show", "ann", "--json").stdout)
    names = ("requests", "parallel", "budget", "models", "spent")
    assert [shown[name] for name in names] == [60, None, 5.0, ["chat", "far"], 0.0]
    assert "digest" not in shown
    assert within("keys", "rotate", "ann", "--overlap", "30m").stdout.startswith("sk-")
    assert within("_complete", "keys", "revoke", "").stdout == "ann\n"
    assert within("_complete", "keys", "require", "").stdout == "on\noff\n"


@pytest.mark.parametrize(
    "change", ["tokens=0", "budget=nan", "budget=-1", "budget=inf", "requests=x", "weight=0"]
)
def test_a_limit_that_is_none_is_refused_with_a_line(within, change):
    assert within("keys", "add", "ann").returncode == 0
    done = within("keys", "set", "ann", change)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert change.partition("=")[0] in done.stderr


def test_what_endpoints_cost_is_told_by_key_pool_and_day(within, tmp_path):
    assert "No endpoint was used" in within("cost").stdout
    at = tmp_path / ".orchestrator"
    at.mkdir(exist_ok=True)
    day = day_of(wiring.clock().now())
    place = {"day": day, "endpoint": "chat", "pool": "nvidia"}
    usage = Usage(**place, key="ann", revision="r1", requests=3, prompt_tokens=1500, cost=1.25)
    held = Occupancy(**place, device_seconds=7200.0, cost=4.0)
    wiring.database(at).add_usage("here", [usage], [held])
    told = within("cost", "--by", "endpoint,key").stdout
    for part in ("chat", "ann", "1,500", "1.25", "2.00", "4.00"):
        assert part in told
    assert json.loads(within("cost", "--json").stdout)["used"][0]["requests"] == 3
    assert within("cost", "--by", "owner").returncode == 2


def test_nobody_gets_in_after_the_last_key_is_revoked_until_that_is_said(within):
    assert "answer to this machine alone" in within("keys").stdout
    assert within("keys", "add", "ann").returncode == 0
    revoked = within("keys", "revoke", "ann").stdout
    assert "Key ann opens nothing any more. No key is left, so nobody gets in" in revoked
    assert "nobody gets in" in within("keys").stdout
    assert "open to everybody" in within("keys", "require", "off").stdout
    assert "open to everybody" in within("keys").stdout
    assert "nobody gets in" in within("keys", "require", "on").stdout


def test_a_server_that_does_not_answer_is_not_deployed(within):
    address = f"http://{free_address()}/v1"
    done = within("deploy", "nope", "--address", address)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: no server answers at {address!r} (")
    assert len(done.stderr.splitlines()) == 1
    assert within("endpoints", "--json").stdout.strip() == "[]"


def test_an_address_where_nothing_can_be_is_not_deployed(within):
    done = within("deploy", "nope", "--address", f"http://{'a' * 70}/v1")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith("error: no server answers at ")


@pytest.mark.parametrize(
    "address", ["http://[::1", "http://a:99999", "http://a:x/v1", "http://:80/v1", "ftp://a/v1"]
)
def test_what_is_no_address_is_refused_with_one_line(within, address):
    done = within("deploy", "nope", "--address", address)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "is no address of a server; write http://HOST:PORT/v1" in done.stderr


def test_a_key_that_is_empty_or_refused_is_told_before_anything_is_deployed(within, tmp_path):
    with listing([], 401) as address:
        done = within("deploy", "chat", "--address", address)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert "refuses who has none; --key-file names the file" in done.stderr
        unset = within("deploy", "chat", "--address", address, "--key-variable", "NO_SUCH_KEY")
    assert (unset.returncode, len(unset.stderr.splitlines())) == (2, 1)
    assert "the environment variable 'NO_SUCH_KEY' is empty" in unset.stderr
    for text, said in (
        (None, "can't be read: No such file"),
        (" \n", "is empty; write the server's key"),
        ("sk-a\nsk-b", "holds more than one line"),
    ):
        if text is not None:
            (tmp_path / "far.key").write_text(text)
        done = within("deploy", "chat", "--address", address, "--key-file", "far.key")
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert f"far.key' {said}" in done.stderr
    assert within("endpoints", "--json").stdout.strip() == "[]"


def test_a_rollback_goes_to_who_led_before_and_not_to_who_never_did(within, far):
    for _ in range(3):
        assert within("deploy", "chat", *far).returncode == 0
    assert within("traffic", "chat", "r3=100").returncode == 0
    assert within("rollback", "chat").stdout.startswith("All traffic of chat goes to r1 on")


def test_two_rollbacks_go_two_back_and_a_third_says_that_there_is_nobody(within, far):
    for _ in range(3):
        assert within("deploy", "chat", *far).returncode == 0
    for number in (2, 3):
        assert within("traffic", "chat", f"r{number}=100").returncode == 0
    for number in (2, 1):
        assert within("rollback", "chat").stdout.startswith(
            f"All traffic of chat goes to r{number}"
        )
    done = within("rollback", "chat")
    assert (done.returncode, len(done.stderr.splitlines())) == (102, 1)
    assert "endpoint 'chat' has no revision before r1" in done.stderr


def test_who_has_all_traffic_is_not_undeployed_while_another_could_take_it(within, far):
    for _ in range(2):
        assert within("deploy", "chat", *far).returncode == 0
    done = within("undeploy", "chat", "r1")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "r1 has all traffic of 'chat'; `traffic chat r2=100` moves it" in done.stderr
    assert within("undeploy", "chat", "r2").returncode == 0
    assert within("undeploy", "chat", "r1").returncode == 0


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_in_trouble_is_not_deployed(within, status):
    with listing([], status) as address:
        done = within("deploy", "nope", "--address", address)
    assert (done.returncode, done.stderr) == (
        1,
        f"error: the server at {address!r} answers {status}\n",
    )


def test_a_server_that_lists_nothing_is_there(within):
    with listing([], 404) as address:
        assert within("deploy", "chat", "--address", address).returncode == 0
    (found,) = json.loads(within("endpoints", "--json").stdout)
    assert found["shares"] == {"r1": 100}


def test_a_server_outside_that_is_dead_is_told(within, far):
    assert within("deploy", "chat", *far).returncode == 0
    wiring.database(wiring.home()).note_trouble("chat", 1, "no server answers at 'x'")
    assert "broken: chat.r1: no server answers at 'x'" in within("endpoints").stdout
    (found,) = json.loads(within("endpoints", "--json").stdout)
    (one,) = found["revisions"]
    assert (one["state"], one["reason"]) == ("broken", "no server answers at 'x'")


def test_a_model_that_the_server_does_not_list_gets_no_traffic_by_itself(within, far):
    done = within("deploy", "chat", *far[:2], "--model", "lama")
    assert done.returncode == 0
    assert "It lists no model 'lama' (it has llama): it gets no traffic by itself." in done.stdout
    (found,) = json.loads(within("endpoints", "--json").stdout)
    assert found["shares"] == {}


@pytest.mark.parametrize("stored", ["NaN", "Infinity", "-Infinity", "1e308", "-5.0"])
def test_a_stored_key_that_is_nonsense_is_listed(within, tmp_path, stored):
    assert within("keys", "add", "ann", "--days", "1", "--tokens", "5").returncode == 0
    database = sqlite3.connect(tmp_path / ".orchestrator/events.db")
    with database:
        (body,) = database.execute("select body from keys").fetchone()
        changed = {**json.loads(body), "expires": float(stored), "tokens": -1}
        database.execute("update keys set body = ?", (json.dumps(changed),))
    database.close()
    assert "ann" in within("keys").stdout
    (listed,) = json.loads(within("keys", "--json").stdout, parse_constant=pytest.fail)
    assert listed["name"] == "ann"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--header", "x-team"), "--header: 'x-team' is no header of a request; write 'NAME: VAL"),
        (("--header", "Host: other"), "--header: 'Host: other' is no header of a request"),
        (("--header", "a: b\r\nc: d"), "is no header of a request"),
        (("--key-header", "api key"), "--key-header: 'api key' is no header of a request"),
        (("--ca-file", "none.pem"), "none.pem' can't be read (No such file"),
    ],
)
def test_how_a_server_outside_is_asked_is_checked_before_it_is_deployed(within, far, words, said):
    done = within("deploy", "chat", *far, *words)
    assert done.returncode in {1, 2}
    assert (len(done.stderr.splitlines()), said in done.stderr) == (1, True), done.stderr


def test_headers_of_a_server_outside_are_kept_with_its_revision(within, far):
    more = ("--header", "X-Team: a", "--header", "b: c", "--key-header", "api-key", "--proxy")
    assert within("deploy", "chat", *far, *more).returncode == 0
    (life,) = wiring.database(wiring.home()).endpoints().values()
    server = life.revisions[1].outside
    assert server is not None
    assert (server.headers, server.key_header, server.proxy) == (
        ("X-Team: a", "b: c"),
        "api-key",
        True,
    )
