"""Two users of one Ray cluster, each with a database, serve by one name: neither harms the other.

Of the second user's endpoints the first one's database knows nothing, and the other way round. A
colleague of the first user shares the database, from a home of their own. Whose answer somebody
got is known by the model that it tells.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.endpoints.reconciler import SECONDS_OF_REST
from orchestrator.supervisor.record import wait
from tests.hosts.clients import Client, asking
from tests.hosts.echo_pipeline import ECHO, OPEN, OTHER, SWITCH, gateway, write_echo
from tests.hosts.namespaces import Host
from tests.hosts.site import Site, site

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(1800)]
SECONDS = 60.0


@dataclass
class User:
    """Somebody on a host of their own, who serves `echo`."""

    site: Site
    host: Host
    key: str = ""
    model: str = ""

    def type(self, *words: str) -> str:
        """Type a command, which does what it says; return what it prints."""
        return self.site.do(self.host, *words, seconds=600.0)

    def launch(self) -> None:
        self.type("launch", *ECHO)

    def up(self) -> None:
        self.type("up", "tracking=none", OPEN)

    def down(self) -> list[str]:
        """Have all that serves be stopped; return what was, but the reaper."""
        stopped = self.type("down").removeprefix("Stopped: ").removesuffix(".\n").split(", ")
        return [name for name in stopped if name != "reaper"]

    def served(self) -> list[Any]:
        """Return the revisions that the user's database has, each with its pool and replicas."""
        (endpoint,) = json.loads(self.type("endpoints", "--json"))
        facts = ("revision", "state", "pool", "replicas")
        return [{fact: revision[fact] for fact in facts} for revision in endpoint["revisions"]]


@dataclass
class Users:
    """The users, and the host that clients are on."""

    first: User
    second: User
    client: Host

    @contextmanager
    def asked(self, *users: User) -> Iterator[list[Client]]:
        """Have the gateways of users asked; each answer is of their own model, and none fails."""
        with ExitStack() as stack:
            loops = [
                stack.enter_context(asking(self.client, "echo", user.key, gateway(user.host)))
                for user in users
            ]
            yield loops
            for loop in loops:
                loop.until_answered(10)
        for user, loop in zip(users, loops, strict=True):
            assert loop.failed() == []
            assert loop.models() == {user.model}

    def others(self) -> list[tuple[User, User]]:
        """Return each user with the other one."""
        return [(self.first, self.second), (self.second, self.first)]


def begun(built: Site, host: Host) -> User:
    """Return a user whose endpoint has been launched; its model is unlike all others."""
    user = User(built, host)
    write_echo(host, model=f"model of {host.name} ")
    user.launch()
    user.key = user.type("keys", "add", host.name).strip()
    with asking(host, "echo", user.key, gateway(host)) as loop:
        (user.model,) = loop.models()
    return user


@pytest.fixture(scope="module")
def there(logs: Path) -> Iterator[Users]:
    """The first user has PostgreSQL, the second one what a home has by itself."""
    with site(logs, mlflow=False) as built:
        first, second, _, client = built.network.hosts
        own = {"ORCHESTRATOR_DATABASE": "", "ORCHESTRATOR_SECRET": secrets.token_hex(16)}
        second.env.update(own)
        users = Users(begun(built, first), begun(built, second), client)
        assert users.first.model != users.second.model
        yield users


@pytest.fixture
def users(there: Users) -> Iterator[Users]:
    yield there
    there.first.site.mend()


def test_what_one_switches_moves_their_own_endpoint_alone(users: Users) -> None:
    for user, other in users.others():
        before = other.served()
        (serving,) = user.served()
        with users.asked(user, other):
            user.type(*SWITCH, f"pool={OTHER[serving['pool']]}")
        (moved,) = user.served()
        assert moved["pool"] == OTHER[serving["pool"]]
        assert other.served() == before


def test_what_one_stops_and_starts_again_is_their_own_gateway_alone(users: Users) -> None:
    for user, other in users.others():
        before = user.served(), other.served()
        with users.asked(other) as (loop,):
            assert user.down() == ["gateway"]
            loop.until_answered(30)
            user.up()
            with users.asked(user):
                loop.until_answered(30)
        assert (user.served(), other.served()) == before


def test_a_colleague_with_the_same_database_comes_and_goes_and_all_is_served(
    users: Users,
) -> None:
    first, site = users.first, users.first.site
    colleague = User(site, site.network.hosts[2], first.key, first.model)
    before = first.served(), users.second.served()
    with users.asked(first, users.second) as (loop, _):
        colleague.up()
        with users.asked(colleague):
            assert colleague.served() == before[0]
        assert colleague.down() == ["gateway"]
        loop.until_answered(30)
    assert (first.served(), users.second.served()) == before


def test_what_one_takes_away_and_serves_again_is_their_own_endpoint_alone(users: Users) -> None:
    for user, other in users.others():
        before = other.served()
        urls = [url for revision in user.served() for url in revision["replicas"]]
        with users.asked(other) as (loop,):
            user.type("undeploy", "echo")
            assert wait(lambda urls=urls: not listening(users, urls), SECONDS, tick=1.0)  # type: ignore[misc]
            if (
                user is users.first
            ):  # whose reconciler has Serve stopped then, where nobody uses it
                wait(lambda: False, SECONDS_OF_REST + 5.0, tick=1.0)
            user.launch()
            with users.asked(user):
                loop.until_answered(10)
        assert other.served() == before


def listening(users: Users, urls: list[str]) -> list[str]:
    """Return those of the replicas at `urls` that are still there."""
    hosts = {host.address: host for host in users.first.site.network.hosts}
    places = [url.split("/")[2].rpartition(":") for url in urls]
    return [f"{a}:{port}" for a, _, port in places if hosts[a].listens(int(port))]
