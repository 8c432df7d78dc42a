"""Jobs by name: found and checked in their sources, with nothing imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from orchestrator.adapters import user_code
from orchestrator.core.settings import JobSettings
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.stages import Endpoint, Json, Pipeline, Stage

WORK = '''\
"""Jobs; importing this must not happen."""
from acme.deep.inner import hidden
from .deep import inner as module, again as renamed
from json import dumps

raise RuntimeError("imported")

def learn(ctx, *, steps: int, lr: float = 0.1, name: str | None = None, mix: list[int] = ()): ...
def shaped(ctx, *, form: Literal["a", "b"] = "a", limits: dict[str, dict[str, float]] = {}): ...
def loose(ctx, **options): ...
def positional(ctx, first, second: int = 2): ...
def alone(): ...
async def later(ctx): ...
@decorated
def wrapped(ctx): ...
made = partial(learn, steps=3)
if True:
    def conditional(ctx): ...
class Engine:
    def __init__(self, model_folder, hardware, *, slots: int = 4): ...
class Inherited(Engine): ...
'''

Check = Callable[..., list[str]]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with the package `acme`, whose modules can't be imported."""
    package = tmp_path / "code" / "acme"
    (package / "deep").mkdir(parents=True)
    (package / "work.py").write_text(WORK)
    (package / "deep" / "__init__.py").write_text("from acme.deep.inner import hidden as again\n")
    (package / "deep" / "inner.py").write_text("def hidden(ctx, *, x: int = 1): ...\n")
    (package / "broken.py").write_text("x = 1\ndef learn(ctx:\n")
    (package / "circle.py").write_text("from acme.circle import go\n")
    return package.parent


@pytest.fixture
def settings(code: Path) -> JobSettings:
    return JobSettings(packages=("jobs", "acme"), code=(str(code),))


@pytest.fixture
def check(settings: JobSettings) -> Check:
    """Return the problems of one stage with a job, as lines."""

    def problems(job: str, params: Mapping[str, Json] | None = None) -> list[str]:
        stage = Stage(name="a", role=Role.TRAIN, job=f"acme.{job}", params=params or {})
        found = user_code.check(Pipeline(name="p", stages=(stage,)), settings)
        return [str(problem).removeprefix("pipeline.stages.a.") for problem in found]

    return problems


def test_a_job_is_checked_without_an_import(check: Check) -> None:
    assert check("work.learn", {"steps": 3}) == []
    assert not [name for name in sys.modules if name.startswith("acme")]


@pytest.mark.parametrize(
    ("job", "line"),
    [
        ("work.lern", "job: the module does not define 'lern'; did you mean 'learn'? it "),
        ("wrok.learn", "job: there is no module 'acme.wrok' on the import path; did you mean 'wo"),
        ("work.learn.deeper", "job: 'acme.work' is a module and holds no 'learn'"),
        ("broken.learn", "job: {code}/acme/broken.py:2 is not Python: '(' was never closed"),
        ("work.alone", "job: 'acme.work.alone' takes no context; write `def NAME(ctx, *, ...)`"),
        ("work.later", "job: 'acme.work.later' is not a plain function; write"),
        ("work.Engine", "job: 'acme.work.Engine' is not a plain function; write"),
        ("work.dumps", "job: 'json.dumps' is in no package that jobs may come from (jobs, acme)"),
        ("circle.go", "job: 'acme.circle.go' is imported in a circle"),
        ("work.", "job: 'acme.work.' is no dotted name; write PACKAGE.MODULE.FUNCTION"),
        ("deep.", "job: 'acme.deep.' is no dotted name; write PACKAGE.MODULE.FUNCTION"),
    ],
)  # fmt: skip
def test_a_job_that_is_not_there_gives_one_line(
    check: Check, code: Path, job: str, line: str
) -> None:
    expected = line.format(code=code)
    assert [found[: len(expected)] for found in check(job)] == [expected]


@pytest.mark.parametrize("folder", ["bare", "bare/inside", "deep/inside", "bare/inside/more"])
def test_a_job_may_be_in_a_folder_without_an_init_inside_another(
    check: Check, code: Path, folder: str
) -> None:
    (code / "acme" / folder).mkdir(parents=True)
    (code / "acme" / folder / "work.py").write_text("def learn(ctx, *, x: int = 1): ...\n")
    name = folder.replace("/", ".")
    assert check(f"{name}.work.learn", {"x": 2}) == []
    assert check(f"{name}.work.lern") == [
        "job: the module does not define 'lern'; did you mean 'learn'? it defines: learn"
    ]
    assert check(f"{name}.wrok.learn")[0].startswith(f"job: there is no module 'acme.{name}.wrok'")


@pytest.mark.parametrize(
    "job",
    ["work.hidden", "work.renamed", "work.wrapped", "work.made", "work.conditional", "work.loose"],
)
def test_a_job_may_be_imported_decorated_made_or_defined_under_a_condition(
    check: Check, job: str
) -> None:
    assert check(job) == []


@pytest.mark.parametrize(
    ("job", "params", "lines"),
    [
        ("learn", {}, ["params.steps: 'acme.work.learn' needs the parameter 'steps'; set "]),
        ("learn", {"steps": 1, "lrr": 2}, ["params.lrr: 'acme.work.learn' has no parameter 'lrr"]),
        ("learn", {"steps": "1"}, ["params.steps: '1' is not of type int"]),
        ("learn", {"steps": 1, "mix": ["2"]}, ["params.mix.0: '2' is not of type int"]),
        ("shaped", {"form": "b", "limits": {"x": {"y": 1}}}, []),
        ("shaped", {"form": "c"}, ["params.form: 'c' is none of them"]),
        ("shaped", {"limits": {"x": 1}}, ["params.limits.x: 1 is not of type dict[str, float]"]),
        ("shaped", {"limits": {"x": {"y": ""}}}, ["params.limits.x.y: '' is not of type float"]),
        ("learn", {"steps": True}, ["params.steps: True is not of type int"]),
        ("learn", {"steps": 1, "lr": 1, "name": None, "mix": [1]}, []),
        ("learn", {"steps": 1, "name": 3}, ["params.name: 3 is not of type str | None"]),
        ("loose", {"anything": 1}, []),
        ("positional", {"first": 1, "second": 2}, []),
        ("positional", {"ctx": 1}, ["params.ctx: ", "params.first: "]),
    ],
)  # fmt: skip
def test_parameters_are_checked_against_the_signature(
    check: Check, job: str, params: Mapping[str, Json], lines: list[str]
) -> None:
    found = check(f"work.{job}", params)
    assert [line[: len(start)] for line, start in zip(found, lines, strict=True)] == lines


def test_a_package_outside_the_allow_list_is_refused_with_the_way_to_add_it(
    settings: JobSettings,
) -> None:
    for job in ("os.system", "acmes.work.learn", "jobsx.y"):
        stage = Stage(name="a", role=Role.TRAIN, job=job)
        (problem,) = user_code.check(Pipeline(name="p", stages=(stage,)), settings)
        assert "is in no package that jobs may come from (jobs, acme)" in problem.what
        assert problem.hint == "add its package to jobs.packages"


def test_an_engine_is_a_class_whose_options_are_checked(settings: JobSettings) -> None:
    def lines(engine: str, **options: Json) -> list[str]:
        endpoint = Endpoint(name="e", engine=engine, engine_options=options)
        stage = Stage(name="a", role=Role.SERVE, endpoint=endpoint)
        found = user_code.check(Pipeline(name="p", stages=(stage,)), settings)
        return [str(problem).removeprefix("pipeline.stages.a.endpoint.") for problem in found]

    assert lines("acme.work.Engine", slots=2) == []
    assert lines("acme.work.Inherited", slots=2) == []
    assert lines("acme.work.learn") == [
        "engine: 'acme.work.learn' is not a class; an engine is one"
    ]
    (line,) = lines("acme.work.Engine", slot=2)
    assert line.startswith("engine_options.slot: 'acme.work.Engine' has no parameter 'slot'; did")


def test_a_folder_of_code_that_is_not_there_is_named() -> None:
    jobs = JobSettings(code=("/nowhere/at/all",))
    (problem,) = user_code.check(Pipeline(name="p", stages=()), jobs)
    assert str(problem) == "jobs.code.0: '/nowhere/at/all' is not a folder; mend jobs.code"
