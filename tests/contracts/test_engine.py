"""What every engine in Python must do (`orchestrator.engine.Engine`), and a replica around it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from orchestrator.adapters import user_code
from orchestrator.core.settings import JobSettings
from orchestrator.core.spec.stages import Endpoint
from orchestrator.engine import Grammar, Piece, Prompt, Sampling
from orchestrator.serving.replica.app import replica
from tests.build import pipeline, stage
from tests.contracts.shipped_engines import GENERATES, GENERATORS, ShippedEngine, engines_of_jobs
from tests.serving.http_server import FixedClock, serving

TEXTS = ["a", "once upon a time", "2 + 2 = ", "é日本" * 3, "x" * 90]
LONG = "once upon a time, " * 6
FIGURES = {"running", "waiting", "slots", "held", "tokens", "cache_used"}


@pytest.fixture(scope="module", params=GENERATORS, ids=lambda shipped: shipped.kind.__name__)
def shipped(request: pytest.FixtureRequest) -> ShippedEngine:
    return request.param


@pytest.fixture(scope="module")
def folders(shipped: ShippedEngine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of one shape."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("one", "two")):
        (root / name).mkdir()
        shipped.save(root / name, seed)
    return root / "one", root / "two"


@pytest.fixture(scope="module")
def engine(shipped: ShippedEngine, folders: tuple[Path, Path]) -> Iterator[Any]:
    """One that no test changes."""
    engine = shipped.make(folders[0])
    yield engine
    engine.close()


@pytest.fixture
def own(shipped: ShippedEngine, folders: tuple[Path, Path]) -> Iterator[Any]:
    """One that a test may update and close."""
    engine = shipped.make(folders[0], version="v1")
    yield engine
    engine.close()


def asking(engine: Any, text: str, **asked: Any) -> AsyncGenerator[Prompt | Piece, None]:
    sampling = Sampling(**{"max_tokens": 24, "temperature": 0.0, **asked})
    return engine.generate(engine.encode(text), sampling)


async def outcomes(engine: Any, text: str, **asked: Any) -> list[Any]:
    return [outcome async for outcome in asking(engine, text, **asked)]


def answer(engine: Any, text: str = LONG, **asked: Any) -> list[Any]:
    return asyncio.run(outcomes(engine, text, **asked))


def text_of(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


async def idle(engine: Any) -> bool:
    """Wait until nothing is left of any answer."""
    for _ in range(200):
        figures = engine.statistics()
        if not any(figures[name] for name in ("running", "waiting", "held", "cache_used")):
            return True
        await asyncio.sleep(0.01)
    return False


def test_every_engine_of_jobs_is_held_to_this() -> None:
    assert {shipped.dotted for shipped in GENERATORS} == engines_of_jobs(GENERATES)


# --- the model that it holds ------------------------------------------------------------------


def test_it_says_what_it_serves(engine: Any, own: Any) -> None:
    assert (engine.version, own.version) == ("one", "v1")
    assert min(engine.max_context, engine.vocabulary, engine.longest_token) > 0
    assert set(engine.defaults) <= {field.name for field in fields(Sampling)}


def test_the_plan_knows_its_options_and_refuses_all_others(shipped: ShippedEngine) -> None:
    def problems(**options: Any) -> list[str]:
        endpoint = Endpoint(name="e", engine=shipped.dotted, engine_options=options)
        pipe = pipeline(stage("s", job=None, endpoint=endpoint))
        return [problem.what for problem in user_code.check(pipe, JobSettings())]

    assert problems(**shipped.options, version="v1") == []
    assert problems(unheard_of=1) == [f"{shipped.dotted!r} has no parameter 'unheard_of'"]
    with pytest.raises(TypeError, match="unheard_of"):
        shipped.make(Path(), unheard_of=1)


@pytest.mark.parametrize("text", TEXTS)
def test_its_tokens_are_the_text(engine: Any, text: str) -> None:
    tokens = engine.encode(text, special=False)
    assert engine.decode(tokens) == text
    words = [engine.token_bytes(token) for token in tokens]
    assert b"".join(words).decode() == text
    assert max(map(len, words)) <= engine.longest_token
    assert all(0 <= token < engine.vocabulary for token in tokens)


def test_a_chat_is_tokens_up_to_where_the_answer_begins(engine: Any) -> None:
    chat = [{"role": "user", "content": "2+2"}]
    tokens = engine.encode_chat(chat)
    assert "2+2" in engine.decode(tokens)
    assert engine.encode_chat(chat, {"add_generation_prompt": True}) == tokens


# --- an answer --------------------------------------------------------------------------------


def test_the_last_piece_of_an_answer_alone_says_why_it_ended(engine: Any) -> None:
    pieces = answer(engine, max_tokens=5)
    assert [piece.finish for piece in pieces] == [*[None] * 4, "length"]
    assert {piece.version for piece in pieces} == {engine.version}
    assert all(0 <= piece.token < engine.vocabulary for piece in pieces)


def test_a_stop_string_ends_the_answer_is_named_and_is_no_part_of_it(engine: Any) -> None:
    whole = text_of(answer(engine))
    stop = whole[5:8]
    for included in (False, True):
        pieces = answer(engine, stop=("never there", stop), include_stop=included)
        assert text_of(pieces) == whole[: whole.index(stop) + len(stop) * included]
        assert (pieces[-1].finish, pieces[-1].stopped_by) == ("stop", stop)


def test_log_probabilities_come_where_they_are_asked_for_the_likeliest_first(engine: Any) -> None:
    for piece in answer(engine, max_tokens=6, logprobs=2):
        assert piece.logprob is not None
        assert piece.top[0] == (piece.token, piece.logprob), "a greedy one is the likeliest"
        assert [*piece.top] == sorted(piece.top, key=lambda token: -token[1])[:2]
    assert all(piece.top == () for piece in answer(engine, max_tokens=2, logprobs=0))


def test_a_scorer_says_of_an_answer_what_its_tokens_had_when_they_were_made(engine: Any) -> None:
    if not hasattr(engine, "score"):
        pytest.skip("it scores no texts")
    pieces = answer(engine, logprobs=2)
    prompt = engine.encode(LONG)
    scores = engine.score([*prompt, *(piece.token for piece in pieces)], len(prompt), 2)
    assert [score.logprob for score in scores] == [piece.logprob for piece in pieces]
    assert [[*zip(score.top, score.logprobs, strict=True)] for score in scores] == [
        [*piece.top] for piece in pieces
    ]


def has_scores(outcomes: list[Any]) -> bool:
    first, *others = outcomes[0].scores
    return first is None and None not in others


TOKEN = 110
# What may be asked, and whether it was done.
ASKED: dict[str, tuple[dict[str, Any], Callable[[list[Any]], bool]]] = {
    "scores of the prompt": ({"prompt_logprobs": 2}, has_scores),
    "no tokens": (
        {"max_tokens": 0, "prompt_logprobs": 0},
        lambda outcomes: len(outcomes) == 1 and has_scores(outcomes),
    ),
    "a grammar": (
        {"grammar": Grammar("choice", '["yes", "no"]')},
        lambda pieces: text_of(pieces) in {"yes", "no"},
    ),
    "a stop token": (
        {"stop_token_ids": (TOKEN,), "logit_bias": {TOKEN: 100.0}},
        lambda pieces: [(piece.token, piece.stopped_by) for piece in pieces] == [(TOKEN, TOKEN)],
    ),
    "the least tokens": (
        {"stop_token_ids": (TOKEN,), "logit_bias": {TOKEN: 100.0}, "min_tokens": 8},
        lambda pieces: len(pieces) == 9,
    ),
    "a token that is forbidden": (
        {"logit_bias": {TOKEN: -100.0}, "temperature": 2.0},
        lambda pieces: TOKEN not in {piece.token for piece in pieces},
    ),
}


@pytest.mark.parametrize("what", ASKED)
def test_what_is_asked_is_done_or_refused_and_never_ignored(engine: Any, what: str) -> None:
    asked, is_done = ASKED[what]
    with suppress(ValueError):
        assert is_done(answer(engine, **asked))
    assert answer(engine, max_tokens=3)[-1].finish == "length", "others go on"


# --- several, and those that are left ---------------------------------------------------------


@pytest.mark.parametrize("asked", [{}, {"temperature": 0.9, "top_p": 0.9, "seed": 5}])
def test_several_at_once_are_answered_as_alone(engine: Any, asked: dict[str, Any]) -> None:
    async def together() -> list[list[Any]]:
        return await asyncio.gather(*(outcomes(engine, text, **asked) for text in TEXTS))

    def tokens(pieces: list[Any]) -> list[int]:
        return [piece.token for piece in pieces]

    alone = [tokens(answer(engine, text, **asked)) for text in TEXTS]
    assert [tokens(pieces) for pieces in asyncio.run(together())] == alone


def test_an_answer_that_is_left_leaves_nothing_behind(engine: Any) -> None:
    async def leave() -> tuple[dict[str, float], bool]:
        async with aclosing(asking(engine, LONG, max_tokens=400)) as pieces:
            await anext(pieces)
            busy = dict(engine.statistics())
        return busy, await idle(engine)

    before = engine.statistics()["tokens"]
    busy, left = asyncio.run(leave())
    assert set(busy) == FIGURES
    assert (busy["running"], busy["waiting"]) == (1, 0)
    assert busy["held"] > len(engine.encode(LONG))
    assert busy["slots"] >= 1
    assert left
    assert engine.statistics()["tokens"] > before


# --- other weights ----------------------------------------------------------------------------


def test_new_weights_drop_no_answer_and_each_token_names_its_own(
    own: Any, folders: tuple[Path, Path]
) -> None:
    async def update_meanwhile() -> list[list[str]]:
        streams = [asking(own, LONG, max_tokens=60, ignore_eos=True) for _ in range(3)]
        first = [(await anext(stream)).version for stream in streams]
        await asyncio.to_thread(own.update, folders[1], "v2")
        rest = [[piece.version async for piece in stream] for stream in streams]
        return [[version, *more] for version, more in zip(first, rest, strict=True)]

    for versions in asyncio.run(update_meanwhile()):
        assert len(versions) == 60
        assert versions[0] == "v1"
        assert versions == sorted(versions), "no way back to the old ones"
    assert own.version == "v2"
    assert {piece.version for piece in answer(own)} == {"v2"}


@pytest.mark.parametrize(
    ("folder", "base"), [("none", None), ("two", "v0")], ids=["no folder", "another base"]
)
def test_weights_that_do_not_fit_are_refused_and_the_old_ones_serve_on(
    own: Any, folders: tuple[Path, Path], folder: str, base: str | None
) -> None:
    before = [piece.token for piece in answer(own)]
    with pytest.raises(ValueError, match=r"there is no model folder|'v1' serves, not 'v0'"):
        own.update(folders[0].parent / folder, "v2", base)
    assert own.version == "v1"
    assert [piece.token for piece in answer(own)] == before


# --- its end, and a replica around it ---------------------------------------------------------


def test_it_is_well_until_it_is_closed_and_then_serves_nobody(
    own: Any, folders: tuple[Path, Path]
) -> None:
    with ThreadPoolExecutor(1) as other:
        assert other.submit(own.health).result() == ""

    async def close_while_answering() -> None:
        async for _ in asking(own, LONG, max_tokens=400):
            await asyncio.to_thread(own.close)

    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(close_while_answering())
    own.close()
    assert own.health()
    with pytest.raises(RuntimeError, match="closed"):
        answer(own)
    with pytest.raises(RuntimeError, match="closed"):
        own.update(folders[1], "v2")


def test_a_replica_serves_it_whole_and_in_streams(engine: Any) -> None:
    body = {"model": "m", "prompt": LONG, "max_tokens": 12, "temperature": 0}
    with serving(replica(engine, "m", FixedClock())) as url, httpx.Client(base_url=url) as client:
        assert client.get("/ready").json() == {"status": "ok"}
        (card,) = client.get("/v1/models").json()["data"]
        assert card["max_model_len"] == engine.max_context
        whole = client.post("/v1/completions", json=body).json()
        assert whole["system_fingerprint"] == engine.version
        assert whole["usage"]["completion_tokens"] == 12
        lines = client.post("/v1/completions", json={**body, "stream": True}).text.split("\n\n")
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert "".join(e["choices"][0]["text"] for e in events) == whole["choices"][0]["text"]
        figures = client.get("/metrics").text
    for name in ("healthy", "requests_running", "slots", "held_tokens", "cache_used_ratio"):
        assert f'orchestrator_engine_{name}{{model="m"}}' in figures
