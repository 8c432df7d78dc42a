"""`orchestrator ask`: put a question to a served model, and print the answer as it comes."""

from __future__ import annotations

import argparse
import sys

from orchestrator import wiring
from orchestrator.cli.exits import Exit
from orchestrator.core.errors import NotFoundError, ServingError
from orchestrator.core.text import visible

SECONDS_TO_ANSWER = 60.0
KEY_VARIABLE = "ORCHESTRATOR_API_KEY"


def run(args: argparse.Namespace) -> Exit:
    """Ask the endpoint that was named, or deployed last."""
    question = sys.stdin.read() if args.question == "-" else args.question
    name, base = _endpoint(args.endpoint)
    from openai import APIConnectionError, APIStatusError, OpenAI

    client = OpenAI(
        base_url=base,
        api_key=wiring.variable(KEY_VARIABLE) or "none",
        timeout=SECONDS_TO_ANSWER,
        max_retries=0,
    )
    try:
        pieces = client.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": question}],
            max_tokens=args.max_tokens,
            temperature=args.temperature,
            stream=True,
        )
        for piece in pieces:
            print(visible(piece.choices[0].delta.content or ""), end="", flush=True)
    except APIStatusError as error:
        message = f"endpoint {name!r} refused the question: {error.message}"
        raise ServingError(message) from error
    except APIConnectionError as error:
        message = f"endpoint {name!r} does not answer at {base}; see `orchestrator endpoints`"
        raise ServingError(message) from error
    print()
    return Exit.SUCCEEDED


def _endpoint(wanted: str | None) -> tuple[str, str]:
    """Return the name and base URL of an endpoint; the newest without a name."""
    at = wiring.home()
    lives = wiring.endpoint_store(at).endpoints()
    known = {name: life for name, life in lives.items() if life.shares}
    if not known and wanted is None:
        message = "no endpoint is served; launch a pipeline that serves: pipeline=r2"
        raise NotFoundError(message)
    newest = max(known, key=lambda name: known[name].moves[-1].at, default="")
    name = wanted or newest
    if name not in known:
        message = f"no endpoint {name!r}; served now: {', '.join(sorted(known)) or 'none'}"
        raise NotFoundError(message)
    return name, f"{wiring.gateway_url(at)}/{name}/v1"
