"""The gate: the exported model, by the engine that will serve it, against the reference pass.

It runs on the pool that will serve. Where a threshold is not kept the stage fails, once and for
all: nothing is tried again or elsewhere, and what comes after it does not begin.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.data.tokenizer import load_tokenizer
from jobs.engines.weights import load
from jobs.parity import figures, proof, table
from jobs.parity.blocks import furthest, norms
from jobs.parity.form import form_of
from jobs.parity.reading import Reference, read
from jobs.parity.reference import rendered
from jobs.parity.verdict import limits_of, sentence, thresholds
from orchestrator.engine import Sampling, Score
from orchestrator.job import Hardware, JobContext, Metrics, ParityError

AUTO = "auto"  # the plan puts an endpoint's own engine class in its place
EMBEDDED = "jobs.engines.embedded.EmbeddedEngine"  # compares what an engine server will read


def check(
    ctx: JobContext,
    *,
    engine: str = AUTO,
    options: dict[str, object] | None = None,
    limits: dict[str, dict[str, float]],
) -> Metrics:
    """Compare the input `model` with the input `reference`.

    Args:
        ctx: The context.
        engine: Dotted name of the engine class; `auto` is that of the endpoint, and the embedded
            engine where that names an engine server.
        options: Its keyword arguments.
        limits: For each format the limits of the figures.

    Raises:
        ParityError: A threshold is not kept, or the engine refuses the model.
    """
    engine = EMBEDDED if engine == AUTO else engine
    reference, folder = read(ctx.inputs["reference"]), ctx.inputs["model"]
    form = form_of(folder)
    allowed = limits_of(form, limits)
    try:
        served = _Served(_made(engine, folder, ctx.hardware, options or {}))
    except (ValueError, OSError) as error:
        raise ParityError(f"the engine of pool {ctx.hardware.pool!r} refuses: {error}") from error
    try:
        found = _measure(ctx, served, reference, folder)
    finally:
        served.engine.close()
    judged = thresholds(found.figures, allowed)
    why = sentence(judged, form, ctx.hardware.pool)
    verdict = table.Verdict(
        why=why,
        format=form,
        pools=(reference.pool, ctx.hardware.pool),
        engine=engine,
        emulated=ctx.hardware.emulated,
        places=int(found.figures.places),
        thresholds=tuple(judged),
        accuracies=found.accuracies,
        worst=found.worst,
    )
    _tell(ctx, verdict)
    values = {f"parity/{name}": value for name, value in asdict(found.figures).items()}
    values["parity/passed"] = float(not why)
    if why:
        ctx.metrics(values, step=0)
        raise ParityError(why)
    proof.write(ctx.output, reference.questions, found.scores)
    return values


def _tell(ctx: JobContext, verdict: table.Verdict) -> None:
    """Show the verdict with the attempt, and keep it as the artifact."""
    texts = {"parity.md": table.markdown(verdict), "parity.json": table.as_json(verdict)}
    for name, text in texts.items():
        ctx.report(name, text)
        (ctx.output / name).write_text(text, "utf-8")
    for one in verdict.thresholds:
        ctx.log(f"{one.name}: {one.value:.4g} ({one.limit:g})")


def _made(name: str, folder: Path, hardware: Hardware, options: dict[str, object]) -> Any:  # noqa: ANN401 - any engine
    module, _, attribute = name.rpartition(".")
    if not module:
        raise TypeError(f"engine={name!r} is no dotted name of an engine class")
    engine_class = getattr(importlib.import_module(module), attribute)
    if not hasattr(engine_class, "score"):
        raise TypeError(f"engine {name!r} can't be compared: it has no `score`, as a Scorer has")
    return engine_class(folder, hardware, **options)


# --- what the served model does ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    figures: figures.Figures
    accuracies: tuple[float, float] | None
    worst: tuple[table.Prompt, ...]
    scores: Sequence[Sequence[Score]]


def _measure(ctx: JobContext, served: _Served, reference: Reference, folder: Path) -> _Found:
    scores: list[Sequence[Score]] = []
    for done, question in enumerate(reference.questions, start=1):
        scores.append(served.engine.score(question.tokens, question.begin, reference.top))
        ctx.progress(done, len(reference.questions))
    prompts = [served.prompt(question) for question in reference.questions]
    answers = served.answers(prompts, reference.max_tokens)
    task, asked = reference.task, reference.questions
    before = figures.accuracy(task, asked, reference.answers)
    after = figures.accuracy(task, asked, answers)
    both = None if before is None or after is None else (before, after)
    same = zip(reference.answers, answers, strict=True)
    words = load_tokenizer(folder)
    change, name = furthest(reference.norms, norms(load(folder, AUTO, "cpu")))
    ctx.log(f"weights: {change:.3g}, most in {name}")
    found = figures.Figures(
        **figures.compare(reference.scores, scores),
        tokenizer=float(served.other_texts(reference)),
        template=float(served.other_chats(reference, prompts, words)),
        greedy=figures.share(one == other for one, other in same),
        accuracy=max(both[0] - both[1], 0.0) if both else 0.0,
        weights=change,
    )
    texts = [_text(question, words) for question in asked]
    far = table.worst(texts, asked, (reference.scores, scores), (reference.answers, answers))
    return _Found(found, both, far, scores)


class _Served:
    """The engine that will serve, asked as clients ask it."""

    def __init__(self, engine: Any) -> None:  # noqa: ANN401 - any engine that is a Scorer
        self.engine = engine

    def prompt(self, question: Any) -> list[int]:  # noqa: ANN401 - a Question
        """Return the prompt as the engine encodes it; that of a plain text as it is."""
        if question.example is None:
            return list(question.prompt)
        chat = [{"role": "user", "content": question.example["question"]}]
        try:
            tokens: list[int] = self.engine.encode_chat(chat)
        except ValueError:  # no template, or one that refuses: other tokens, and worth an answer
            return list(question.prompt)
        return tokens

    def answers(self, prompts: Sequence[Sequence[int]], most: int) -> list[str]:
        """Return the greedy answers to all prompts, made together."""

        async def one(prompt: Sequence[int]) -> str:
            sampling = Sampling(max_tokens=most, temperature=0.0)
            return "".join([piece.text async for piece in self.engine.generate(prompt, sampling)])

        async def all_of_them() -> list[str]:
            return await asyncio.gather(*map(one, prompts))

        return [text.strip() for text in asyncio.run(all_of_them())]

    def other_texts(self, reference: Reference) -> int:
        """Return how many texts it encodes otherwise."""
        return sum(self.engine.encode(text) != [*tokens] for text, tokens in reference.texts)

    def other_chats(
        self,
        reference: Reference,
        prompts: Sequence[Sequence[int]],
        words: Any,  # noqa: ANN401 - a tokenizer
    ) -> int:
        """Return how many chats and prompts it renders or encodes otherwise."""
        asked = sum(
            [*prompt] != [*question.prompt]
            for prompt, question in zip(prompts, reference.questions, strict=True)
        )
        return asked + sum(self._differs(chat, words) for chat in reference.chats)

    def _differs(self, chat: Any, words: Any) -> bool:  # noqa: ANN401 - a Chat, a tokenizer
        if rendered(words, chat.messages) != chat.text:
            return True
        tokens: list[int] = self.engine.encode_chat(chat.messages)
        return tokens != [*chat.tokens]


def _text(question: Any, words: Any) -> str:  # noqa: ANN401 - a Question, a tokenizer
    if question.example is not None:
        return str(question.example["question"])
    return str(words.decode(question.prompt))
