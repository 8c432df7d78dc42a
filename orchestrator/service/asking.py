"""Put a question to a served model."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from orchestrator import wiring
from orchestrator.core.errors import ServingError
from orchestrator.service import endpoints

SECONDS_TO_ANSWER = 60.0
KEY_VARIABLE = "ORCHESTRATOR_API_KEY"


def ask(
    question: str, endpoint: str | None = None, *, max_tokens: int = 128, temperature: float = 0.0
) -> Iterator[str]:
    """Yield the answer of an endpoint, or of the one deployed last, in pieces as it comes.

    Raises:
        NotFoundError: It is not served.
        ServingError: It does not answer, or refuses the question.
    """
    name = endpoint or endpoints.newest_served()
    base = endpoints.base_url(name)
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
            max_tokens=max_tokens,
            temperature=temperature,
            stream=True,
        )
        for piece in pieces:
            yield piece.choices[0].delta.content or ""
    except APIStatusError as error:
        message = f"endpoint {name!r} refused the question: {error.message}"
        raise ServingError(message) from error
    except APIConnectionError as error:
        untrusted = _untrusted(error)
        hint = f"{untrusted}; name who signs for it in SSL_CERT_FILE" if untrusted else ""
        message = f"endpoint {name!r} does not answer at {base}"
        raise ServingError(f"{message}{hint or '; see `orchestrator endpoints`'}") from error


def _untrusted(error: BaseException | None) -> str:
    """Return why the certificate of who answers is not trusted; empty where that is not it."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f": {error.verify_message}"
        error = error.__cause__ or error.__context__
    return ""
