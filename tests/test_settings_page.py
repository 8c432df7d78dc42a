"""The page of settings has every setting, with its default and the module that reads it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path

import pytest
import yaml

from orchestrator.adapters.hydra_config.document import FROM_KEY, Document
from orchestrator.core.settings import (
    AttemptSettings,
    ClusterSettings,
    DatabaseSettings,
    JobSettings,
    StorageSettings,
    TrackingSettings,
)
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.policy import Gate, Limits, Recovery, Watch
from orchestrator.core.spec.stages import Needs, Stage
from orchestrator.core.trust.qualification import Rules
from tests.adapters.hydra_config.test_profiles import values

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
# By the heading that its table is under, and what stands before its names there.
SECTIONS: dict[tuple[str, str], type] = {
    ("What an attempt waits for", "attempts."): AttemptSettings,
    ("The services around", "database."): DatabaseSettings,
    ("The services around", "cluster."): ClusterSettings,
    ("The services around", "tracking."): TrackingSettings,
    ("The services around", "storage."): StorageSettings,
    ("The services around", "jobs."): JobSettings,
    ("The services around", "qualification."): Rules,
    ("A run", ""): Document,
    ("A stage", ""): Stage,
    ("A stage", "needs."): Needs,
    ("A stage", "limits."): Limits,
    ("A stage", "recovery."): Recovery,
    ("A stage", "watch."): Watch,
    ("A stage", "gate."): Gate,
    ("A pool", ""): Pool,
}
ROW = re.compile(r"^\| `([\w.]+)` \| (.+?) \| (.*?) \| (.+) \| `(.+)` \|$", re.MULTILINE)


def section(heading: str) -> str:
    (found,) = (part for part in PAGE.split("\n## ") if part.startswith(heading))
    return found


def rows(heading: str, prefix: str) -> dict[str, tuple[str, str]]:
    """Return the default and the module of each setting whose name begins so, by its own name."""
    found = ROW.findall(section(heading))
    mine = [row for row in found if row[0].rpartition(".")[0] == prefix.rstrip(".")]
    assert len({row[0] for row in mine}) == len(mine), "each stands there once"
    return {row[0].removeprefix(prefix): (row[1], row[4]) for row in mine}


def shown(field: Field[object]) -> set[str]:
    """Return how a default may be written."""
    value = field.default
    if field.default_factory is not MISSING:
        value = field.default_factory()
    if value is MISSING:
        return {"must be set"}
    if value is None or isinstance(value, bool):
        return {f"`{yaml.safe_dump(value).split()[0]}`"}
    if isinstance(value, int | float):
        return {f"`{value:g}`"}
    if isinstance(value, tuple) and value:
        return {f"`[{', '.join(value)}]`"}
    if isinstance(value, str) and value:
        return {f"`{value}`"}
    return {"its own"} if value else {"empty"}


@pytest.mark.parametrize(("place", "kind"), SECTIONS.items(), ids=str)
def test_the_page_has_every_setting_with_its_default(place: tuple[str, str], kind: type) -> None:
    told = rows(*place)
    # Other sections and pages have these.
    elsewhere = {"pipeline", "fleet", "engines", "signatures", "gateway"} | {
        prefix.rstrip(".") for _, prefix in SECTIONS
    }
    names = {field.name: field for field in fields(kind)}
    names.pop(str(FROM_KEY.get(kind)), None)
    left = {name for name in names if not (kind is Document and name in elsewhere)}
    assert told.keys() == left
    for name, (default, _) in told.items():
        assert default in shown(names[name]), name


@pytest.mark.parametrize(("place", "kind"), SECTIONS.items(), ids=str)
def test_the_module_that_the_page_names_reads_the_setting(
    place: tuple[str, str], kind: type
) -> None:
    spoken = {"keep": "kept", **{f"{name}_limit": name for name in ("cost", "time")}}
    spoken["attempt_limit"] = "attempts"
    for name, (_, module) in rows(*place).items():
        text = (ROOT / module).read_text(encoding="utf-8")
        assert re.search(rf"[.]{spoken.get(name, name)}\b", text), (
            f"{kind.__name__}.{name}: {module}"
        )


def test_every_section_of_a_config_has_its_place_on_the_page() -> None:
    for field in fields(Document):
        assert re.search(rf"`(?:{field.name}|{field.name}[.][\w.]+)`", PAGE), field.name


def test_the_page_shows_what_the_profile_of_a_laptop_says() -> None:
    row = re.compile(r"^\| `([\w.]+)` \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)
    cluster, laptop = values("cluster"), values("laptop")
    told = row.findall(section("Profiles"))
    assert told == [(path, f"{cluster[path]:g}", f"{laptop[path]:g}") for path in laptop]


def constants() -> Iterator[tuple[str, str, float, str]]:
    """Yield all figures that stand at the top of a module, by module and name, with the comment.

    Only what is written there as a number is one; the default of a setting is none.
    """
    for path in sorted((ROOT / "orchestrator").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.parse(text).body:
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            values = figures(node.value)
            comment = lines[(node.end_lineno or node.lineno) - 1].partition("#")[2]
            if len(names) != len(values):
                continue  # a table
            for name, value in zip(names, values, strict=True):
                if name.isupper():
                    yield path.stem, name, value, comment


def figures(value: ast.expr) -> list[float]:
    """Return the figures of an expression of numbers alone; none where it has anything else."""
    sums = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)
    if not all(isinstance(node, (*sums, ast.Tuple, ast.Load)) for node in ast.walk(value)):
        return []
    known = eval(compile(ast.Expression(value), "", "eval"), {})  # noqa: S307 - numbers alone
    several = known if isinstance(known, tuple) else (known,)
    is_figure = [isinstance(n, int | float) and not isinstance(n, bool) for n in several]
    return list(several) if all(is_figure) else []


def test_each_wait_is_a_setting_or_named_as_fixed() -> None:
    waits = re.compile(r"SECONDS|PATIENCE|GRACE|PAUSE|BACKOFF|(?<![A-Z])WAIT(?![A-Z])")
    often = re.compile(r"BETWEEN|LOOK|POLL|TICK|PAUSE|(SHORTEST|LONGEST)_WAIT")
    named = set(re.findall(r"`(\w+[.][A-Z_]+)`", section("Fixed, and why")))
    unnamed = []
    for module, name, value, comment in constants():
        if not waits.search(name) and not re.match(r"\s*seconds?\b", comment):
            continue
        if often.search(name):
            assert value <= 30.0, f"{module}.{name} is more than how often something is looked at"
        elif f"{module}.{name}" not in named:
            unnamed.append(f"{module}.{name}")
    assert unnamed == []


def test_each_bound_of_what_is_kept_or_decided_is_named_as_fixed() -> None:
    bounds = re.compile(r"^_?(MOST|LEAST)_|^(FEWEST|MUCH)$|(^|_)TRIES(_|$)|_OF_REST$|_AHEAD$")
    named = set(re.findall(r"`(\w+[.][A-Z_]+)`", section("Fixed, and why")))
    often = re.compile("BETWEEN|PAUSE")  # which decides nothing
    names = {(module, name) for module, name, *_ in constants() if not often.search(name)}
    bounding = {f"{module}.{name}" for module, name in names if bounds.search(name)}
    assert bounding - named == set()


def test_what_is_named_as_fixed_is_there() -> None:
    named = re.findall(r"`(\w+[.][A-Z_]+)`", section("Fixed, and why"))
    assert len(named) == len(set(named))
    assert set(named) - {f"{module}.{name}" for module, name, *_ in constants()} == set()


def test_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).is_file(), target
