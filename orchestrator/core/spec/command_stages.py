"""Stages that are a command: their keys, the checkpoints that are known, what can never work.

Such a stage is a stage of one job, whose parameters are written as keys of the stage. Problems
name the key as it was written. What has a wrong type is passed over: who reads the job says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TypeAlias

from orchestrator.core.errors import Problem, shown
from orchestrator.core.failures.kinds import OF_A_JOB
from orchestrator.core.nearest import choices
from orchestrator.core.spec import command_words
from orchestrator.core.spec.command_words import NAMES
from orchestrator.core.spec.stages import Json, Stage
from orchestrator.job import ranks_of_worker

JOB = "jobs.commands.stage.run"
# The parameters of that job, which are keys of a stage with a command.
KEYS = (
    "command",
    "processes",
    "workdir",
    "resume",
    "checkpoints",
    "metrics",
    "tensorboard",
    "mlflow",
    "result",
    "exit_codes",
    "grace",
)
# What frameworks write, by the name of the layout: where, and by what it is known to be whole.
LAYOUTS: Mapping[str, Mapping[str, Json]] = MappingProxyType(
    {
        "huggingface": {"pattern": "checkpoint-{step}", "complete": "trainer_state.json"},
        "dcp": {"pattern": "step-{step}", "complete": ".metadata"},
        "megatron": {"pattern": "iter_{step}", "tracker": "latest_checkpointed_iteration.txt"},
        "verl": {
            "pattern": "global_step_{step}",
            "tracker": "latest_checkpointed_iteration.txt",
            "reshard": False,
        },
        "deepspeed": {"pattern": "global_step{step}", "tracker": "latest", "reshard": False},
        "lightning": {"pattern": "epoch=*-step={step}.ckpt"},
    }
)
_LAYOUT = "layout"
_FIELDS = ("complete", "pattern", "reshard", "settle", "tracker")  # of what a checkpoint is
_STEP = "{step}"
_WILD = re.compile(r"[?\[]|\*\*")
_MOST_PROCESSES = 1024
_LAST_CODE = 255
_MOST_GRACE = 590  # seconds; a worker has 600 at most, of which some are its own
_Check: TypeAlias = Callable[[str, Json], Iterator[Problem]]


def is_command(stage: Stage) -> bool:
    """Whether a stage is a command."""
    return stage.job == JOB


def writes_to_mlflow(stage: Stage) -> bool:
    """Whether what a stage starts writes to its run in MLflow itself."""
    return is_command(stage) and stage.params.get("mlflow") is True


def params_path(stage: Stage, pool: str = "") -> str:
    """Return the path of the parameters of a stage, or of what differs of them on `pool`."""
    path = f"pipeline.stages.{stage.name}{f'.on.{pool}' if pool else ''}"
    return path if is_command(stage) else f"{path}.params"


def spread_layout(checkpoints: Json) -> Json:
    """Return what a checkpoint is, with the layout that it names spelled out."""
    if not isinstance(checkpoints, Mapping) or checkpoints.get(_LAYOUT) not in LAYOUTS:
        return checkpoints
    own = {key: value for key, value in checkpoints.items() if key != _LAYOUT}
    return {**LAYOUTS[str(checkpoints[_LAYOUT])], **own}


def written(stage: Stage) -> Iterator[tuple[str, Mapping[str, Json], frozenset[str]]]:
    """Yield where a stage has parameters, all that hold there, and which are written there."""
    yield params_path(stage), stage.params, frozenset(stage.params)
    for pool, differs in stage.on.items():
        if differs.params:
            yield params_path(stage, pool), stage.on_pool(pool).params, frozenset(differs.params)


def problems_of_command(stage: Stage, pools: Sequence[str] = ()) -> Iterator[Problem]:
    """Yield what of a command can never work; `pools` are those on which the stage may run."""
    if not is_command(stage):
        return
    names = (*NAMES, *(f"inputs.{name}" for name in stage.inputs))
    yield from command_words.problems_of_variables(stage, names)
    for path, params, keys in written(stage):
        yield from command_words.problems_of_words(path, params, keys, names)
        if keys & {"command", "resume", "checkpoints"}:
            yield from command_words.problems_of_use(path, params, stage.env)
        for key in (key for key in _CHECKS if key in keys):
            yield from _CHECKS[key](f"{path}.{key}", params[key])
        if "grace" in keys:
            yield from _grace_problems(f"{path}.grace", params["grace"], stage.limits.kill_after)
    yield from _size_problems(stage, pools)


# --- what it writes -----------------------------------------------------------------------------


def _checkpoint_problems(path: str, value: Json) -> Iterator[Problem]:
    if not isinstance(value, Mapping):
        return
    layout = value.get(_LAYOUT)
    if layout is not None and layout not in LAYOUTS:
        hint = choices(str(layout), LAYOUTS, "layouts")
        yield Problem(f"{path}.{_LAYOUT}", f"{shown(layout)} is no layout that is known", hint)
    for key in value.keys() - {*_FIELDS, _LAYOUT}:
        what = f"a checkpoint has no {shown(key)}"
        yield Problem(f"{path}.{key}", what, choices(str(key), (*_FIELDS, _LAYOUT), "keys"))
    if "pattern" in value or layout is None:
        yield from _pattern_problems(f"{path}.pattern", value.get("pattern", ""))
    for key in ("complete", "tracker"):
        if key in value:
            yield from _place_problems(f"{path}.{key}", value[key], "a file")
    if not isinstance(value.get("reshard", True), bool):
        what = f"{shown(value['reshard'])} is neither true nor false"
        yield Problem(f"{path}.reshard", what, "say whether any number of ranks can go on")
    yield from _settle_problems(f"{path}.settle", value)


def _pattern_problems(path: str, pattern: Json) -> Iterator[Problem]:
    how = "write a path below {checkpoints}, with {step} once for the digits of its step"
    if not isinstance(pattern, str):
        yield Problem(path, f"{shown(pattern)} is no text", how)
        return
    rest = pattern.replace(_STEP, "0")
    if pattern.count(_STEP) != 1:
        times = f"has {pattern.count(_STEP)} of" if _STEP in pattern else "has no"
        yield Problem(path, f"{shown(pattern)} {times} {_STEP}", how)
    elif "{" in rest or "}" in rest:
        yield Problem(path, f"{shown(pattern)} has braces of others, and fits nothing", how)
    elif _WILD.search(rest):
        what = f"{shown(pattern)} fits nothing: ?, [ and ** stand for themselves, * for a name"
        yield Problem(path, what, how)
    else:
        yield from _place_problems(path, pattern, "a path")


def _place_problems(path: str, value: Json, what: str) -> Iterator[Problem]:
    """Refuse what is no path below a folder, as it is written when it is listed."""
    if not isinstance(value, str):
        yield Problem(path, f"{shown(value)} is no text", f"write {what}")
        return
    plain = PurePosixPath(value)
    if not value or plain.is_absolute() or ".." in plain.parts or str(plain) != value:
        hint = f"write {what} below the folder, as 'a/b'"
        yield Problem(path, f"{shown(value)} never fits: it is no plain relative path", hint)


def _settle_problems(path: str, value: Mapping[str, Json]) -> Iterator[Problem]:
    settle = value.get("settle", 0.0)
    if isinstance(settle, bool) or not isinstance(settle, int | float):
        yield Problem(path, f"{shown(settle)} is no number", "write seconds")
    elif not 0 <= settle < float("inf"):
        yield Problem(path, f"{shown(settle)} is out of bounds", "write seconds, 0 or more")
    else:
        sign = next((key for key in ("complete", "tracker") if value.get(key)), "")
        if "settle" in value and sign:
            what = f"is not looked at: {sign!r} says when a checkpoint is whole"
            yield Problem(path, what, "leave one of them out")


def _metric_problems(path: str, value: Json) -> Iterator[Problem]:
    if not isinstance(value, Mapping):
        yield from _of_each(_pattern_of_metrics_problems)(path, value)
        return
    for key in value.keys() - {"file", "step"}:
        what = f"a file of metrics has no {shown(key)}"
        yield Problem(f"{path}.{key}", what, choices(str(key), ("file", "step"), "keys"))
    if value.get("file"):
        yield from _folder_problems(f"{path}.file", value["file"])
    else:
        yield Problem(path, "names no `file`", "write the file of JSON lines, or patterns")


def _pattern_of_metrics_problems(path: str, pattern: str) -> Iterator[Problem]:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        yield Problem(path, f"{shown(pattern)} is no regular expression: {error}", "mend it")
        return
    if "step" not in groups or len(groups) == 1:
        lacks = "of a metric" if "step" in groups else "'step'"
        hint = "name a group (?P<step>...) and one for each metric, as (?P<loss>...)"
        yield Problem(path, f"{shown(pattern)} finds no metrics: it has no group {lacks}", hint)


def _result_problems(path: str, pattern: str) -> Iterator[Problem]:
    plain = PurePosixPath(pattern)
    if not pattern or plain.is_absolute() or ".." in plain.parts or "{" in pattern:
        hint = "write a path below {output}, as 'model/*.safetensors'"
        yield Problem(path, f"{shown(pattern)} is never found in {{output}}", hint)


def _process_problems(path: str, value: Json) -> Iterator[Problem]:
    number = isinstance(value, int) and not isinstance(value, bool)
    if number and not 1 <= value <= _MOST_PROCESSES:  # type: ignore[operator]
        hint = f"1 to {_MOST_PROCESSES}, of each worker"
        yield Problem(path, f"{shown(value)} is out of bounds", hint)


def _grace_problems(path: str, value: Json, kill_after: float) -> Iterator[Problem]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not 0 <= value <= _MOST_GRACE:
        yield Problem(path, f"{shown(value)} is out of bounds", f"0 to {_MOST_GRACE} seconds")
    elif value > kill_after:
        what = f"{value:g} s are never given: limits.kill_after kills its worker after"
        yield Problem(path, f"{what} {kill_after:g} s", "raise that, or leave it out")


def _folder_problems(path: str, value: Json) -> Iterator[Problem]:
    """Refuse a folder or file that outlives an attempt: others would write there too."""
    if not isinstance(value, str):
        return
    plain = PurePosixPath(value)
    if plain.is_absolute() or ".." in plain.parts:
        what = f"{shown(value)} is of other attempts, too"
        yield Problem(path, what, "write '{output}/...', or a path in the working folder")


def _code_problems(path: str, value: Json) -> Iterator[Problem]:
    kinds = sorted(kind.value for kind in OF_A_JOB)
    for code, kind in value.items() if isinstance(value, Mapping) else ():
        if not (str(code).isdecimal() and 1 <= int(code) <= _LAST_CODE):
            hint = f"1 to {_LAST_CODE}; 0 is success, and a signal is none"
            yield Problem(f"{path}.{code}", f"{shown(code)} is no exit code of a failure", hint)
        if isinstance(kind, str) and kind not in kinds:
            what = f"{shown(kind)} is no kind of failure that a job can know of"
            yield Problem(f"{path}.{code}", what, choices(kind, kinds, "kinds"))


# --- how many processes there are ---------------------------------------------------------------


def _size_problems(stage: Stage, pools: Sequence[str]) -> Iterator[Problem]:
    """Yield where a stage may go on with another number of ranks than its checkpoints take."""
    sizes: dict[int, str] = {}
    for pool in pools:
        placed = stage.on_pool(pool)
        checkpoints = placed.params.get("checkpoints")
        if not isinstance(checkpoints, Mapping) or checkpoints.get("reshard", True) is not False:
            continue
        processes = placed.params.get("processes")
        each = ranks_of_worker(
            placed.needs.devices, processes if isinstance(processes, int) else None
        )
        for workers in (placed.needs.workers, placed.needs.least):
            sizes.setdefault(workers * each, pool)
    if len(sizes) > 1:
        (first, pool), (second, other), *_ = sizes.items()
        what = f"false, but there are {first} ranks on {pool!r} and {second} on {other!r}"
        hint = "ask for as many on each pool, or say true where the script can take it"
        yield Problem(f"{params_path(stage)}.checkpoints.reshard", what, hint)


def _of_each(check: Callable[[str, str], Iterator[Problem]]) -> _Check:
    def checks(path: str, value: Json) -> Iterator[Problem]:
        for number, text in enumerate(value if isinstance(value, list) else ()):
            if isinstance(text, str):
                yield from check(f"{path}.{number}", text)

    return checks


_CHECKS: Mapping[str, _Check] = MappingProxyType(
    {
        "checkpoints": _checkpoint_problems,
        "metrics": _metric_problems,
        "tensorboard": _folder_problems,
        "result": _of_each(_result_problems),
        "exit_codes": _code_problems,
        "processes": _process_problems,
    }
)
