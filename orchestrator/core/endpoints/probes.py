"""What a rollout itself asks of revisions, and how far apart two of them answer.

Two revisions of one trained model are compared by the log-probabilities that both give to fixed
texts: those of two makers' chips, or of two formats, differ by rounding, and greedy answers then
part ways at the first tie. The limit is that of the parity gate: what it derived for this model
from the noise of its arithmetic, where it has. For two models that are close, the mean distance
of log-probabilities is about the root of twice their KL divergence (Pinsker's inequality bounds
it so), and each of the two may be as far from the trained model as its format allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from orchestrator.core.spec.hardware import Format

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
EMBEDDINGS, PREDICT, READY = "/v1/embeddings", "/v1/predict", "/ready"
TOKENS = 16
PROMPTS = ("12 + 30 =", "The quick brown fox", "def add(a, b):", "1 2 3 4")
# Scored by both: prose, code and numbers. Short, for a model may have a context of 64 tokens.
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "def add(a, b): return a + b",
    "12 + 30 = 42",
    "1 2 3 4 5 6 7 8",
)
# Nats of mean KL divergence that the parity gate allows where a pipeline has no limits of its own.
KL_MEAN: Mapping[str, float] = MappingProxyType({"fp32": 1e-4, "bf16": 1e-3})
KL_MEAN_OF_OTHERS = 0.02
_LIKELY = -7.0  # nats: less likely tokens are far out in the tails, where rounding is large
_FEW = 4


@dataclass(frozen=True, slots=True)
class Probe:
    """A question: a path, and the body to post there; without a body it is fetched."""

    path: str
    body: object = None


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What came back: the HTTP status, 0 where nothing did, after how long, and the JSON of it."""

    status: int
    seconds: float
    body: object = None

    @property
    def good(self) -> bool:
        """Whether it is an answer at all."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's successes


def completion(model: str, prompt: str) -> Probe:
    """Return the request for a greedy completion."""
    body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    return Probe(COMPLETIONS, body)


def chat(model: str, prompt: str) -> Probe:
    """Return the request for a greedy answer in a chat, by the model's own template."""
    messages = [{"role": "user", "content": prompt}]
    body = {"model": model, "messages": messages, "max_tokens": TOKENS, "temperature": 0}
    return Probe(CHAT, body)


def scoring(model: str, text: str) -> Probe:
    """Return the request for the log-probabilities of a text; nothing is generated."""
    body = {"model": model, "prompt": text, "max_tokens": 0, "echo": True, "logprobs": 1}
    return Probe(COMPLETIONS, {**body, "temperature": 0})


def embedding(model: str, text: str) -> Probe:
    """Return the request for the embedding of a text."""
    return Probe(EMBEDDINGS, {"model": model, "input": text, "encoding_format": "float"})


def prediction(body: object) -> Probe:
    """Return the request for what an engine predicts."""
    return Probe(PREDICT, body)


READINESS = Probe(READY)


def predicts(answer: ProbeAnswer) -> bool:
    """Whether who answers a completion so is no language model: it points to where it predicts."""
    return not answer.good and PREDICT in str(answer.body)


def text_of(answer: ProbeAnswer) -> str:
    """Return the text of an answer; empty where it has none."""
    choice = _choice(answer)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, Mapping) else choice.get("text")
    return text if isinstance(text, str) else ""


def scores_of(answer: ProbeAnswer) -> tuple[float, ...]:
    """Return the log-probabilities of an answer's tokens, but for the first, which has none."""
    logprobs = _choice(answer).get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, Mapping) else None
    if not isinstance(values, Sequence) or isinstance(values, str):
        return ()
    return tuple(float(value) for value in values if isinstance(value, int | float))


def vector_of(answer: ProbeAnswer) -> tuple[float, ...]:
    """Return the embedding that is answered; empty where there is none."""
    data = answer.body.get("data") if isinstance(answer.body, Mapping) else None
    first = data[0] if answer.good and isinstance(data, Sequence) and data else None
    vector = first.get("embedding") if isinstance(first, Mapping) else None
    if not isinstance(vector, Sequence) or isinstance(vector, str):
        return ()
    return tuple(float(value) for value in vector if isinstance(value, int | float))


def _choice(answer: ProbeAnswer) -> Mapping[str, object]:
    choices = answer.body.get("choices") if isinstance(answer.body, Mapping) else None
    first = choices[0] if isinstance(choices, Sequence) and choices else None
    return first if answer.good and isinstance(first, Mapping) else {}


def limit(form: Format, allowed: Mapping[str, float], derived: float | None = None) -> float:
    """Return how far a model in a format may be from the trained one, nats a token.

    `allowed` has the mean KL divergences that the parity gate allows at most, `derived` is the one
    that it has found for this model.
    """
    most = {**KL_MEAN, **allowed}.get(form, KL_MEAN_OF_OTHERS)
    return math.sqrt(2.0 * (most if derived is None else min(most, derived)))


def distance(old: Sequence[float], new: Sequence[float]) -> float:
    """Return the mean distance of the log-probabilities of one text, nats a token.

    Tokens that neither takes for likely count only where there are few others. Infinite where the
    texts are encoded otherwise, a score is no number, or a token is impossible for one alone.
    """
    if len(old) != len(new):
        return math.inf
    if not all(a == b or math.isfinite(a - b) for a, b in zip(old, new, strict=True)):
        return math.inf
    pairs = list(zip(old, new, strict=True))
    likely = [pair for pair in pairs if max(pair) > _LIKELY]
    counted = likely if len(likely) >= _FEW else pairs
    return sum(abs(a - b) for a, b in counted if a != b) / len(counted) if counted else 0.0


def apart(old: Sequence[Sequence[float]], new: Sequence[Sequence[float]], most: float) -> str:
    """Return why the log-probabilities of texts differ too much, or nothing."""
    distances = [distance(a, b) for a, b in zip(old, new, strict=True)]
    mean = sum(distances) / len(distances) if distances else 0.0
    if mean <= most:
        return ""
    return (
        f"log-probabilities of {len(distances)} texts are {mean:.3g} nats a token apart, "
        f"{most:.3g} are allowed"
    )


def angle(old: Sequence[float], new: Sequence[float]) -> float:
    """Return the angle of two embeddings, radians; infinite where they can't be compared."""
    lengths = math.hypot(*old) * math.hypot(*new)
    if len(old) != len(new) or not lengths or not math.isfinite(lengths):
        return math.inf
    cosine = sum(a * b for a, b in zip(old, new, strict=True)) / lengths
    return math.acos(max(-1.0, min(1.0, cosine)))


def turned(old: Sequence[Sequence[float]], new: Sequence[Sequence[float]], most: float) -> str:
    """Return why the embeddings of texts differ too much, or nothing.

    The angle of two vectors is the relative error between them: the same limit holds as for
    log-probabilities.
    """
    mean = sum(map(angle, old, new)) / len(old) if old else 0.0
    if mean <= most:
        return ""
    return f"embeddings of {len(old)} texts are {mean:.3g} radians apart, {most:.3g} are allowed"


def disagreement(agreement: float, old: Sequence[str], new: Sequence[str]) -> str:
    """Return why greedy answers differ too much, or nothing: where no log-probabilities are."""
    equal = sum(ours == theirs for ours, theirs in zip(old, new, strict=True))
    if not old or equal >= agreement * len(old):
        return ""
    worst = next(n for n, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1])
    return (
        f"{equal} of {len(old)} probes are answered alike, {agreement:.0%} are wanted; "
        f"{new[worst][:40]!r} for {old[worst][:40]!r}"
    )
