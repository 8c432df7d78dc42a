"""Writes the page `docs/api.md`, which is made of the table of fields."""

from __future__ import annotations

import sys

from orchestrator.serving.http.request_fields import CHAT, COMPLETION, MESSAGE, Field, Fields

_HEAD = """# The API of an endpoint

An endpoint speaks OpenAI's API. Where an engine server (vLLM, SGLang, a maker's own) stands behind
it, requests are passed on, and all that the server knows works. What follows is true where the
embedded engine answers. A field is **done**; or **inert**: it changes no answer anywhere; or
**refused** with status 400 and code `unsupported_parameter`, unless its value asks for nothing.
A field that stands nowhere here is refused, too: none is ignored.

This page is made of the table that requests are checked by:
`python -m orchestrator.serving.http.api_page > docs/api.md`.

## Paths

| path | what it is |
| --- | --- |
| `POST /v1/completions`, `POST /v1/chat/completions` | answers, whole or as events |
| `POST /tokenize`, `POST /detokenize` | as in vLLM: a text or a chat as tokens, and back |
| `POST /v1/predict` | models that are no language models: JSON in, JSON out |
| `GET /v1/models`, `GET /v1/models/NAME` | with `max_model_len` |
| `GET /health` | of a replica: 503 and the reason while its engine can't serve |
| `GET /ready` | of a replica: whether it may be asked |
| `GET /metrics` | of a replica: `orchestrator_engine_*`, for Prometheus; wants its token |

`/v1/embeddings`, `/v1/responses`, `/v1/messages` and the like are 404 `unsupported_endpoint` here;
engine servers have them. Answers carry `x-request-id`: the client's own where it sent one, and
the `id` of the answer has it. A stream begins with `x-prompt-tokens`.

## Errors

All have OpenAI's shape; its clients raise their typed errors.

| status | code | what it is |
| --- | --- | --- |
| 400 | `unsupported_parameter` | a field or a value that is refused; `param` names it |
| 400 | `context_length_exceeded` | prompt and answer have no room in the context |
| 400 | `invalid_json` | the body is no JSON |
| 404 | `model_not_found`, `unsupported_endpoint`, `unknown_url` | nothing is there |
| 500 | `not_finite` | the model's scores were no finite numbers; other answers go on |
| 500 | `engine_failed` | the engine failed; `/health` says whether it still can serve |
"""
_TITLES = {
    "`/v1/completions`": COMPLETION,
    "`/v1/chat/completions`": CHAT,
    "Messages of a chat": MESSAGE,
}


def page() -> str:
    """Return the page."""
    return "\n".join((_HEAD, *(_section(*item) for item in _TITLES.items())))


def _section(title: str, fields: Fields) -> str:
    rows = [f"| `{name}` | {field.note} |" for name, field in _of(fields, "done")]
    inert = ", ".join(
        f"`{name}` ({field.note})" if field.note else f"`{name}`"
        for name, field in _of(fields, "inert")
    )
    refused = ", ".join(f"`{name}`{_but(field)}" for name, field in _of(fields, "refused"))
    table = "\n".join(("| done | |", "| --- | --- |", *rows))
    return f"## {title}\n\n{table}\n\nInert: {inert}.\n\nRefused: {refused}.\n"


def _of(fields: Fields, state: str) -> list[tuple[str, Field]]:
    names = sorted(name for name, field in fields.items() if field.state == state)
    return [(name, fields[name]) for name in names]


def _but(field: Field) -> str:
    values = [value for value in field.neutral if value not in (None, False, [], {}, "")]
    return f" (but for `{values[0]!r}`)" if values else ""


if __name__ == "__main__":
    sys.stdout.write(page())
