"""`orchestrator ask`: put a question to a served model, and print the answer as it comes."""

from __future__ import annotations

import argparse
import sys

from orchestrator import wiring
from orchestrator.cli import runs
from orchestrator.cli.exits import Exit
from orchestrator.core.errors import NotFoundError, ServingError

SECONDS_TO_ANSWER = 60.0
NEWEST_RUNS = 100


def run(args: argparse.Namespace) -> Exit:
    """Ask the endpoint that was named, or deployed last."""
    question = sys.stdin.read() if args.question == "-" else args.question
    name, base = _endpoint(args.endpoint)
    from openai import APIConnectionError, APIStatusError, OpenAI

    client = OpenAI(base_url=base, api_key="none", timeout=SECONDS_TO_ANSWER, max_retries=0)
    try:
        pieces = client.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": question}],
            max_tokens=args.max_tokens,
            temperature=args.temperature,
            stream=True,
        )
        for piece in pieces:
            print(piece.choices[0].delta.content or "", end="", flush=True)
    except APIStatusError as error:
        message = f"endpoint {name!r} refused the question: {error.message}"
        raise ServingError(message) from error
    except APIConnectionError as error:
        message = f"endpoint {name!r} does not answer at {base}; launch its pipeline again"
        raise ServingError(message) from error
    print()
    return Exit.SUCCEEDED


def _endpoint(wanted: str | None) -> tuple[str, str]:
    """Return the name and base URL of an endpoint; the newest without a name."""
    store = wiring.event_store(wiring.home())
    known: dict[str, str] = {}
    for header in store.runs(NEWEST_RUNS):
        for name in runs.served(runs.load(store, header)):
            known.setdefault(name, wiring.endpoint_url(header, name))
            if wanted in (None, name):
                return name, known[name]
    if wanted is None:
        message = "no endpoint was deployed yet; launch a pipeline that serves: pipeline=r2"
        raise NotFoundError(message)
    message = f"no endpoint {wanted!r}; deployed so far: {', '.join(sorted(known)) or 'none'}"
    raise NotFoundError(message)
