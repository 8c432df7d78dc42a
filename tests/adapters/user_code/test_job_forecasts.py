"""What a job says of an attempt before it begins: asked in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.user_code import Importable, forecasts
from orchestrator.core.settings import JobSettings
from orchestrator.core.spec.stages import Needs
from tests import build

WORK = """\
def learn(ctx, *, parallel=None): ...
def forecast_learn(params, *, inputs, workers, memory_gb, bf16):
    print("noise of a library")
    if params["parallel"]["shard"] != workers:
        raise ValueError(f"{params['parallel']!r} is\\nnot {workers!r}")
    yield f"{workers} workers of {memory_gb} GB, {inputs}, bf16 {bf16}"
def broken(ctx, *, parallel=None): ...
def forecast_broken(params, **given): raise RuntimeError("no torch here")
def plain(ctx, *, parallel=None): ...
def whole(ctx, *, model=None, architecture=""): ...
def forecast_whole(params, *, inputs, workers, memory_gb, bf16):
    yield f"all of it in {memory_gb} GB"
"""


@pytest.fixture
def jobs(tmp_path: Path) -> JobSettings:
    package = tmp_path / "code" / "forecasting"
    package.mkdir(parents=True)
    (package / "work.py").write_text(WORK)
    return JobSettings(packages=("forecasting",), code=(str(tmp_path / "code"),))


def _forecasts(
    jobs: JobSettings, job: str, shard: int, kept: Path | None = None, **needs: int
) -> tuple[list[str], list[str]]:
    stage = build.stage(
        "train",
        job=f"forecasting.work.{job}",
        params={"parallel": {"shard": shard}} if shard else {},
        needs=Needs(**needs),
    )
    problems, notes = forecasts(build.plan(stage), jobs, Importable(jobs.code), kept)
    return [str(problem) for problem in problems], list(notes)


def test_a_plan_shows_what_a_job_will_take_and_refuses_what_it_cant_do(jobs: JobSettings) -> None:
    problems, notes = _forecasts(jobs, "learn", 2, workers=2)
    assert not problems
    (note,) = notes
    assert note.startswith("stage 'train' on 'a': 2 workers of ")
    (problem,), _ = _forecasts(jobs, "learn", 4, workers=2)
    assert problem == "pipeline.stages.train.params.parallel: on 'a': {'shard': 4} is not 2"


def test_an_elastic_gang_must_do_with_its_fewest_workers_too(jobs: JobSettings) -> None:
    (problem,), notes = _forecasts(jobs, "learn", 2, workers=2, min_workers=1)
    assert problem.endswith("{'shard': 2} is not 1")
    assert len(notes) == 1


@pytest.mark.parametrize(("job", "shard"), [("learn", 0), ("plain", 2)])
def test_who_splits_nothing_or_says_nothing_is_not_asked(
    jobs: JobSettings, job: str, shard: int
) -> None:
    assert _forecasts(jobs, job, shard, workers=2) == ([], [])


@pytest.mark.parametrize(
    ("memory_gb", "params", "answers"),
    [
        (80.0, {"model": {"hidden_size": 4096}}, 1),
        (80.0, {"model": {"hidden_size": 64, "num_hidden_layers": 2}}, 0),
        (80.0, {"architecture": "deepseek_v3"}, 1),
        (80.0, {"architecture": "qwen3", "model": {"num_hidden_layers": 8}}, 1),
        (80.0, {"architecture": "qwen3", "model": {"hidden_size": 64}}, 0),
        (80.0, {"rows": {"sequence": 4096}}, 0),
        (80.0, {"model": "/shared/model"}, 0),
        (None, {"model": {"hidden_size": 4096}}, 0),
    ],
)
def test_who_splits_nothing_is_asked_where_a_chip_may_be_too_small(
    jobs: JobSettings, memory_gb: float | None, params: dict[str, object], answers: int
) -> None:
    stage = build.stage("train", job="forecasting.work.whole", params=params)
    chip = build.pool("a", chip=build.accelerator(memory_gb=memory_gb))
    problems, notes = forecasts(build.plan(stage, a=chip), jobs, Importable(jobs.code))
    assert not problems
    assert list(notes) == ["stage 'train' on 'a': all of it in 80.0 GB"] * answers


def test_a_job_that_fails_to_answer_stops_nobody(jobs: JobSettings) -> None:
    problems, (note,) = _forecasts(jobs, "broken", 2, workers=2)
    assert not problems
    assert note == "what 'train' will take is not known here: RuntimeError: no torch here"


def test_a_job_that_fails_to_answer_hides_no_refusal_of_another(
    tmp_path: Path, jobs: JobSettings
) -> None:
    kept = tmp_path / "forecasts.json"
    stages = [
        build.stage(
            name,
            job=f"forecasting.work.{job}",
            params={"parallel": {"shard": 4}},
            needs=Needs(workers=2),
        )
        for name, job in (("first", "broken"), ("train", "learn"), ("last", "broken"))
    ]
    for _ in range(2):
        (problem,), notes = forecasts(build.plan(*stages), jobs, Importable(jobs.code), kept)
        assert str(problem).startswith("pipeline.stages.train.params.parallel: on 'a': ")
        assert list(notes) == [
            f"what {name!r} will take is not known here: RuntimeError: no torch here"
            for name in ("first", "last")
        ]


def test_a_job_is_asked_once_until_it_or_the_question_changes(
    tmp_path: Path, jobs: JobSettings
) -> None:
    kept, asked = tmp_path / "cache" / "forecasts.json", tmp_path / "asked"
    work = tmp_path / "code" / "forecasting" / "work.py"
    work.write_text(f"""\
def learn(ctx, *, parallel=None): ...
def forecast_learn(params, **given):
    with open({str(asked)!r}, "a") as file:
        file.write("asked ")
    if params["parallel"]["shard"] == 3:
        raise ValueError("three is too many")
    yield "fits"
""")

    def times(shard: int) -> tuple[int, list[str], list[str]]:
        problems, notes = _forecasts(jobs, "learn", shard, kept, workers=2)
        return asked.read_text().count("asked"), problems, notes

    first, second = times(2), times(2)
    assert (first[0], second[0]) == (1, 1)
    assert first[2] == second[2] == ["stage 'train' on 'a': fits"]
    refused, again = times(3), times(3)
    assert (refused[0], again[0]) == (2, 2)
    assert refused[1] == again[1]
    assert "three is too many" in again[1][0]
    work.write_text(work.read_text().replace("fits", "fits well"))
    assert times(2) == (3, [], ["stage 'train' on 'a': fits well"])


@pytest.mark.parametrize("content", ["", "[]", "{", '{"key": 3}'])
def test_a_damaged_file_of_answers_is_as_if_nothing_were_kept(
    tmp_path: Path, jobs: JobSettings, content: str
) -> None:
    kept = tmp_path / "forecasts.json"
    kept.write_text(content)
    _, (note,) = _forecasts(jobs, "learn", 2, kept, workers=2)
    assert note.startswith("stage 'train' on 'a': 2 workers of ")


def test_answers_are_given_where_none_can_be_kept(tmp_path: Path, jobs: JobSettings) -> None:
    (tmp_path / "file").write_text("no folder")
    _, notes = _forecasts(jobs, "learn", 2, tmp_path / "file" / "forecasts.json", workers=2)
    assert len(notes) == 1
