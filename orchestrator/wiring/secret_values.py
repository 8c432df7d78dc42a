"""The values of secrets, read on this host when they are handed out; they are kept nowhere."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.core.errors import Problem, shown
from orchestrator.core.spec.environment_variables import is_file, secret_sources, whose_secret
from orchestrator.core.spec.plan import Plan


def secret(source: str) -> str | None:
    """Return the value of a secret that a variable or a file of this host has; `None`: none."""
    if not is_file(source):
        return os.environ.get(source)
    try:
        return Path(source).expanduser().read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError):
        return None


def secret_problems(plan: Plan) -> list[Problem]:
    """Return each secret of stages that has no value on this host, once."""
    problems: dict[Problem, None] = {}
    for planned_stage in plan.stages:
        stage = planned_stage.stage
        for pool in (plan.pools[name] for name in planned_stage.pools):
            for name, source in secret_sources(stage, pool).items():
                if secret(source) is None:
                    what = f"{'file' if is_file(source) else 'variable'} {shown(source)}"
                    path = f"{whose_secret(name, stage, pool)}.secrets.{name}"
                    problem = f"{what} has no value here"
                    problems[Problem(path, problem, "set it where you launch")] = None
    return list(problems)
