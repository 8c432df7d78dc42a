"""The papers of the repository say what is true: licence, changelog, hooks, examples."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

import orchestrator
from orchestrator.adapters import hydra_config
from orchestrator.adapters.hydra_config.document import FROM_KEY
from orchestrator.core.failures.explain import explain
from orchestrator.core.failures.signatures import matcher
from orchestrator.core.settings import (
    CorsSettings,
    GatewaySettings,
    MetricsSettings,
    ReconcilerSettings,
    TlsSettings,
)
from orchestrator.core.spec.engines import EngineSpec
from orchestrator.core.spec.hardware import Accelerator
from orchestrator.core.spec.policy import Rollout
from orchestrator.core.spec.stages import Endpoint
from orchestrator.serving.http.request_limits import GatewayLimits
from tests.build import documented
from tests.core.corpus.cases import excerpt, is_right

ROOT = Path(__file__).parents[1]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def example(heading: str, language: str, page: str = "CONTRIBUTING.md") -> str:
    """Return the one example in a language under a heading of a page, else of the guide."""
    sections = re.split(r"^## ", text_of(page), flags=re.MULTILINE)
    (section,) = (section for section in sections if section.startswith(heading))
    (found,) = re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)
    return str(found)


def test_the_licence_is_the_one_that_the_package_names() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    assert project["license"] == "Apache-2.0"
    lines = [line.strip() for line in text_of("LICENSE").splitlines()]
    assert lines[1:4] == [
        "Apache License",
        "Version 2.0, January 2004",
        "http://www.apache.org/licenses/",
    ]
    assert "END OF TERMS AND CONDITIONS" in lines


def test_the_changelog_opens_with_this_version() -> None:
    versions = re.findall(
        r"^## \[(.+?)\] - (unreleased|\d{4}-\d\d-\d\d)$", text_of("CHANGELOG.md"), re.MULTILINE
    )
    assert versions[0][0] == orchestrator.__version__


def test_every_hook_is_local_and_calls_a_target_of_the_makefile() -> None:
    config = yaml.safe_load(text_of(".pre-commit-config.yaml"))
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    targets = re.findall(r"^([a-z]\w*):", text_of("Makefile"), re.MULTILINE)
    for hook in config["repos"][0]["hooks"]:
        command, target = hook["entry"].split()
        assert (command, target in targets) == ("make", True)


def test_make_hosts_runs_every_test_on_hosts() -> None:
    (expression,) = re.findall(
        r'^\t.*-m "([\w ]+)" tests/hosts$', text_of("Makefile"), re.MULTILINE
    )
    run = expression.split(" or ")
    for path in (ROOT / "tests/hosts").glob("test_*.py"):
        (marks,) = re.findall(r"^pytestmark = (.+)$", text_of(str(path)), re.MULTILINE)
        assert set(re.findall(r"pytest\.mark\.(\w+)", marks)) & {*run}, path.name


def test_the_chip_of_the_contributing_guide_parses() -> None:
    known = TypeAdapter(Accelerator).validate_python(yaml.safe_load(example("Add a chip", "yaml")))
    assert known.resource == "NPU"


def test_the_job_of_the_contributing_guide_runs(tmp_path: Path) -> None:
    scope: dict[str, Callable[..., object]] = {}
    code = compile(example("Add a job", "python"), "CONTRIBUTING.md", "exec")
    exec(code, scope)  # noqa: S102 - our own example

    class Context:
        output = tmp_path

    assert scope["count"](Context(), text="to be or not") == {"words": 4.0}
    assert (tmp_path / "words.txt").read_text() == "to\nbe\nor\nnot"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a config folder with the engine of the contributing guide, `fast`."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "fast.yaml").write_text(example("Add an engine", "yaml"))
    return tmp_path


def key_of_fast(folder: Path, *overrides: str) -> str | None:
    """Return what the engine `fast` takes its key by, as an endpoint has it."""
    named = "pipeline.stages.serve.endpoint.engine=fast"
    settings = hydra_config.compose([*overrides, named], config_dir=folder)
    endpoint = settings.pipeline.stages[-1].endpoint
    assert endpoint is not None
    assert endpoint.server is not None
    return endpoint.server.key_variable


def test_the_engine_server_of_the_contributing_guide_can_be_named(folder: Path) -> None:
    assert key_of_fast(folder, "pipeline=smoke", "+engine@engines.fast=fast") == "FAST_KEY"


@pytest.mark.parametrize(
    ("group", "line", "file"),
    [
        ("fleet", "- /engine@engines.NAME: NAME", "# @package _global_\n{}\n  - local\n"),
        ("pipeline", "- /engine@_global_.engines.NAME: NAME", "{}\n  - smoke\n"),
    ],
)
def test_a_fleet_or_a_pipeline_of_ones_own_names_an_engine(
    folder: Path, group: str, line: str, file: str
) -> None:
    assert f"`{line}`" in text_of("docs/engines.md")
    (folder / group).mkdir()
    defaults = f"defaults:\n  {line.replace('NAME', 'fast')}"
    (folder / group / "mine.yaml").write_text(file.format(defaults))
    chosen = {"pipeline": "smoke", group: "mine"}
    overrides = [f"{name}={value}" for name, value in chosen.items()]
    assert key_of_fast(folder, *overrides) == "FAST_KEY"


def test_the_signature_of_the_contributing_guide_is_that_of_the_page_of_failures() -> None:
    page = yaml.safe_load(example("Signatures of your own", "yaml", "docs/failures.md"))
    guide = yaml.safe_load(example("Add a failure signature", "yaml"))["our_fabric"]
    assert guide["pattern"] == page["our_fabric"]["pattern"]
    assert "priority" not in guide, "of a shipped file"


def test_a_signature_of_ones_own_goes_before_the_documented_ones(tmp_path: Path) -> None:
    line = "fabricd: port 3 flapped: Cannot allocate memory"
    before = matcher(documented()).in_line(line)
    assert before is not None, "a general one fits that line, too"
    (tmp_path / "signatures").mkdir()
    mine = example("Signatures of your own", "yaml", "docs/failures.md")
    (tmp_path / "signatures" / "mine.yaml").write_text(mine)
    settings = hydra_config.compose(["pipeline=smoke", "signatures=mine"], config_dir=tmp_path)
    found = matcher(tuple(settings.signatures.values())).in_line(line)
    assert found is not None
    assert found.signature.name == "our_fabric"


def test_the_cases_of_the_contributing_guide_have_the_form_of_the_corpus(tmp_path: Path) -> None:
    (tmp_path / "signatures").mkdir()
    mine = example("Signatures of your own", "yaml", "docs/failures.md")
    (tmp_path / "signatures" / "mine.yaml").write_text(mine)
    settings = hydra_config.compose(["pipeline=smoke", "signatures=mine"], config_dir=tmp_path)
    signatures = tuple(settings.signatures.values())
    cases = example("Add a failure signature", "json").splitlines()
    assert len(cases) == 2
    for case in map(json.loads, cases):
        assert is_right(explain(excerpt(case), signatures).kind, case), case


TABLES = {
    Endpoint: "docs/endpoints.md",
    Rollout: "docs/endpoints.md",
    GatewaySettings: "docs/endpoints.md",
    TlsSettings: "docs/endpoints.md",
    CorsSettings: "docs/endpoints.md",
    MetricsSettings: "docs/endpoints.md",
    ReconcilerSettings: "docs/endpoints.md",
    GatewayLimits: "docs/endpoints.md",
    EngineSpec: "docs/engines.md",
}


@pytest.mark.parametrize(("kind", "page"), TABLES.items())
def test_a_page_has_every_setting_in_a_table(kind: type, page: str) -> None:
    tables = [line for line in text_of(page).splitlines() if line.startswith("|")]
    cells = " ".join(line.split("|")[1] for line in tables)
    named = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", cells)}
    groups = {"tls", "cors", "metrics"}  # whose own settings are there
    assert {field.name for field in fields(kind)} - groups - {FROM_KEY.get(kind)} <= named


def test_the_page_of_endpoints_says_the_defaults_of_the_limits() -> None:
    page = text_of("docs/endpoints.md")
    units = {1024: "{} KiB", 1024**2: "{} MiB", 1024**3: "{} GiB"}
    for field in fields(GatewayLimits):
        default, sizes = field.default, [n for n in units if field.name.endswith("_bytes")]
        unit = max((n for n in sizes if default % n == 0), default=0)
        shown = units[unit].format(default // unit) if unit else f"{default:g}"
        shown = str(default) if isinstance(default, int) and not unit else shown
        (row,) = (
            line for line in page.splitlines() if re.match(rf"\|.*`{field.name}`.*\|.*\|", line)
        )
        names, values = (cell.strip().split(", ") for cell in row.split("|")[1:3])
        assert values[names.index(f"`{field.name}`")] == shown


def test_the_glossary_says_each_word_once_and_where_it_lives() -> None:
    row = re.compile(r"^\| ([a-z].*?) \| (.+) \| `(.+)` \|$", re.MULTILINE)
    rows = row.findall(text_of("docs/glossary.md"))
    words = [word for word, _, _ in rows]
    assert len(words) > 60
    assert words == sorted(set(words))
    assert [module for _, _, module in rows if not (ROOT / module).is_file()] == []


# Files that each may lead through.
WAYS = {"One launch": 12, "One attempt": 15, "One failure": 12, "One request": 12, "One answer": 5}
STEP = re.compile(r"^(\d+)\. `((?:orchestrator|jobs)(?:\.\w+)+)`: \S", re.MULTILINE)


def steps_of(heading: str) -> list[str]:
    """Return the functions of a way of the walk-through; they are numbered from 1 on."""
    (section,) = re.findall(
        rf"^## {heading}$(.*?)(?=^## |\Z)",
        text_of("docs/walkthrough.md"),
        re.MULTILINE | re.DOTALL,
    )
    steps = STEP.findall(section)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    assert len(steps) == len(re.findall(r"^\d+\. ", section, re.MULTILINE))
    return [name for _, name in steps]


def file_of(name: str) -> Path:
    """Return the file whose own function or method has this dotted name."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        stem = ROOT.joinpath(*parts[:count])
        file = next(
            (f for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.exists()), None
        )
        if file is not None:
            break
    else:
        raise AssertionError(f"{name}: no such module")
    node: ast.AST = ast.parse(file.read_text(encoding="utf-8"))
    for part in parts[count:]:
        inner = [n for n in ast.iter_child_nodes(node) if getattr(n, "name", None) == part]
        assert inner, f"{name}: {file.name} does not define {part!r}"
        node = inner[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef), f"{name} is no function"
    return file


def test_the_walk_through_says_through_how_many_files_a_launch_and_a_request_lead() -> None:
    both = {("One launch", "One attempt"): 22, ("One request", "One answer"): 15}
    counts = []
    for headings, most in both.items():
        files = {file_of(name) for heading in headings for name in steps_of(heading)}
        assert len(files) <= most, headings
        counts.append(len(files))
    launch, request = counts
    line = f"attempt leads through {launch} files, a request with its answer through {request}."
    assert line in text_of("docs/walkthrough.md")


@pytest.mark.parametrize(("heading", "most"), WAYS.items())
def test_the_walk_through_leads_through_functions_in_few_files(heading: str, most: int) -> None:
    files = [file_of(name) for name in steps_of(heading)]
    assert len(files) >= 5
    assert len(set(files)) <= most
