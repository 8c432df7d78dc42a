"""The thin path over hosts, in short: trained on one, served on another, asked from a third."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.hosts.clients import ask_once, new_key
from tests.hosts.listening import PORTS, Listener, listeners, named, open_to_others, rows_of
from tests.hosts.namespaces import ROOT
from tests.hosts.services import BUCKET
from tests.hosts.site import OURS, Site, site

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(600)]
DASHBOARD = ("--include-dashboard=true", "--dashboard-host=0.0.0.0")
PAGE = ROOT / "docs/security.md"
OPEN = "gateway.host=0.0.0.0"
HOME_ARTIFACTS = ".orchestrator/artifacts"


@pytest.fixture(scope="module")
def launched(logs: Path) -> Iterator[Site]:
    """A site whose host 0, the head, has the services, and has launched a pipeline."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with site(logs, hosts=3, services=0, head=DASHBOARD, **token) as built:
        words = ("pipeline=short", *OURS, OPEN)
        built.do(built.network.hosts[0], "launch", *words)
        yield built


def test_each_role_ran_on_the_host_of_its_pool(launched: Site) -> None:
    stages = launched.run().stages
    assert [stages[name].attempts[-1].pool for name in ("pretrain", "serve")] == [
        "hopper",
        "atlas",
    ]
    assert not launched.run().header.plan.emulated


def test_another_host_asks_the_endpoint_and_all_know_it(launched: Site) -> None:
    first, second, third = launched.network.hosts
    ask_once(launched, second, "short", new_key(launched, first))
    assert f"http://{first.address}:8000/v1" in launched.do(third, "endpoints")


def test_the_page_names_the_ports_that_are_asked() -> None:
    assert rows_of(PAGE.read_text(encoding="utf-8")).keys() == PORTS.keys()


def test_a_port_is_open_unless_it_is_on_loopback_and_a_program_that_is_no_row_has_none() -> None:
    everywhere, any_of_ipv6 = "00000000:1F40", f"{'0' * 32}:1F40"
    loopback = (
        "0100007F:1F40",
        "0000000000000000FFFF00000100007F:1F40",
        f"{'0' * 24}01000000:1F40",
    )
    for address in (everywhere, any_of_ipv6, "0100B20A:1F40"):
        assert open_to_others(("0:", address, "00000000:0000", "0A"))
        assert not open_to_others(("0:", address, "0100B20A:1F41", "01")), "a connection"
    assert not any(open_to_others(("0:", address, "", "0A")) for address in loopback)
    assert Listener("10.178.0.1", 8080, "python -m http.server 8080").rows() == []


def test_each_port_is_named_by_the_page_and_keeps_out_who_has_no_secret(launched: Site) -> None:
    page = rows_of(PAGE.read_text(encoding="utf-8"))
    (urls,) = launched.store.replicas().values()
    hosts = launched.network.hosts
    seen = [listener for host in hosts for listener in listeners(host)]
    answered = named(seen, hosts[2], urlsplit(urls[0]).path)
    still = {listener for host in hosts for listener in listeners(host)}
    for listener, rows in answered.items():
        if not rows and listener not in still:
            continue
        assert rows, f"{listener.place} answers as no row says: {listener.command}"
        fixed = {page[row] for row in rows if page[row].isdigit()}
        assert fixed <= {str(listener.port)}, (listener.place, rows)
    assert {row for rows in answered.values() for row in rows} == page.keys()


def test_another_host_prints_what_was_written(launched: Site) -> None:
    second = launched.network.hosts[1]
    printed = launched.do(second, "logs", launched.run().header.run, "pretrain")
    assert "176 rows, 2 workers" in printed


def test_what_was_made_is_in_the_bucket_and_in_no_home(launched: Site) -> None:
    artifact = launched.run().stages["export"].artifact
    assert artifact is not None
    assert artifact.uri.startswith(f"s3://{BUCKET}/")
    assert not [host for host in launched.network.hosts if host.path(HOME_ARTIFACTS).exists()]


def test_it_ends_from_another_host_and_nothing_of_ours_runs_on(launched: Site) -> None:
    first, second, _ = launched.network.hosts
    launched.do(second, "undeploy", "short")
    launched.do(first, "down")
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in first.processes()]
    assert not [line for line in lines if b"orchestrator" in line.split(b"\0")]
