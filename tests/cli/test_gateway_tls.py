"""A gateway by TLS: verbs and clients that trust who signs for it reach it, others are told."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import openai
import pytest

from orchestrator import wiring
from orchestrator.core.endpoints.gateway_entry import Gateway
from orchestrator.serving.gateway.routes import EndpointRoute
from orchestrator.serving.http.server import Listening
from tests.certificates import Authority
from tests.conftest import Command
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision


@pytest.fixture
def signer(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def url(within: Command, signer: Authority) -> Iterator[str]:
    """A gateway that the database knows, where a server outside is endpoint `chat`."""
    pem, key = signer.certify("127.0.0.1")
    at = Listening(host="127.0.0.1", port=0, certificate=str(pem), key=str(key))
    with echoing(echo_engine(), name="chat") as urls:
        board = Board(EndpointRoute(name="chat", revisions=(revision("r1", *urls),)))
        far = ("--address", f"{urls[0]}/v1", "--model", "chat")
        assert within("deploy", "chat", *far).returncode == 0
        with gateway_of(board, at=at) as url:
            here = Gateway(name="here", url=url, host=wiring.machine(), pid=os.getpid())
            wiring.database(wiring.home()).note_gateway(here)
            yield url


def test_verbs_and_the_official_client_reach_it_by_who_signs_for_it(
    within: Command, url: str, signer: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert url.startswith("https://127.0.0.1:")
    assert url in within("endpoints").stdout
    trusted = httpx.Client(verify=ssl.create_default_context(cafile=str(signer.file)))
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", http_client=trusted) as client:
        said = client.completions.create(model="chat", prompt="hi", max_tokens=8)
    assert said.choices[0].text == "hi"

    untrusted = within("ask", "hello")
    assert untrusted.returncode == 1
    (line,) = untrusted.stderr.splitlines()
    assert "does not answer at https://127.0.0.1:" in line
    assert "unable to get local issuer certificate; name who signs for it in SSL_CERT_FILE" in line
    monkeypatch.setenv("SSL_CERT_FILE", str(signer.file))
    asked = within("ask", "hello")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert "hello" in asked.stdout
