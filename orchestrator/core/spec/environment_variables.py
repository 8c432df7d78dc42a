"""Which environment variables a config may set, and which are the product's own to set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from orchestrator.core.errors import Problem, shown
from orchestrator.core.spec.hardware import Fleet, Pool
from orchestrator.core.spec.stages import Pipeline, Stage

# Where a worker is among the others of its gang, by the names that torchrun has for it.
OF_A_PLACE = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "NODE_RANK",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def problems_of_environment(pipeline: Pipeline, fleet: Fleet) -> Iterator[Problem]:
    """Yield what is wrong with the variables of the pools and stages."""
    for pool in fleet.pools.values():
        chip, path = pool.accelerator, f"fleet.pools.{pool.name}"
        reserved = (*OF_A_PLACE, chip.visible_devices)
        yield from _problems(f"{path}.accelerator", chip.env, chip.secrets, reserved)
        yield from _problems(path, pool.env, pool.secrets, reserved)
    for stage in pipeline.stages:
        path = f"pipeline.stages.{stage.name}"
        yield from _problems(path, stage.env, stage.secrets, OF_A_PLACE)


def secret_sources(stage: Stage, pool: Pool) -> dict[str, str]:
    """Return where each secret variable of `stage` on `pool` is read."""
    return {**pool.secret_sources, **stage.secrets}


def whose_secret(name: str, stage: Stage, pool: Pool) -> str:
    """Return the path in the config of what a secret of `stage` on `pool` belongs to."""
    if name in stage.secrets:
        return f"pipeline.stages.{stage.name}"
    path = f"fleet.pools.{pool.name}"
    return path if name in pool.secrets else f"{path}.accelerator"


def is_file(source: str) -> bool:
    """Whether a secret is read from a file; else from a variable of the controller."""
    return "/" in source


def _problems(
    path: str,
    env: Mapping[str, str],
    secrets: Mapping[str, str],
    reserved: tuple[str | None, ...],
) -> Iterator[Problem]:
    for kind, names in (("env", env), ("secrets", secrets)):
        for name in names:
            where = f"{path}.{kind}.{name}"
            if not _NAME.fullmatch(name):
                what = f"{shown(name)} is no name of an environment variable"
                yield Problem(where, what, "use letters, digits and _")
            elif name in reserved:
                what = f"{shown(name)} says which place a worker has"
                yield Problem(where, what, "leave it out: it is set for each worker")
    yield from _value_problems(path, env, secrets)


def _value_problems(
    path: str, env: Mapping[str, str], secrets: Mapping[str, str]
) -> Iterator[Problem]:
    for name, value in env.items():
        if "\0" in value:
            yield Problem(f"{path}.env.{name}", f"{shown(value)} holds a NUL", "take it out")
    for name in env.keys() & secrets.keys():
        what = f"{shown(name)} stands in env too"
        yield Problem(f"{path}.secrets.{name}", what, "leave one of them out")
    for name, source in secrets.items():
        if not is_file(source) and not _NAME.fullmatch(source):
            what = "is neither the name of a variable nor of a file"  # it may be the secret itself
            yield Problem(f"{path}.secrets.{name}", what, "write VARIABLE, or /PATH of a file")
