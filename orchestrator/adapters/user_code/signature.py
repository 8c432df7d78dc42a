"""The parameters that a config may give to a job or an engine, read from its definition."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.adapters.user_code.annotation import misfits
from orchestrator.adapters.user_code.lookup import Definition, LookupProblem
from orchestrator.core.errors import Problem, shown
from orchestrator.core.nearest import choices
from orchestrator.core.spec.stages import Json

# What comes before the parameters that a config gives: the context of a job; of an engine `self`,
# the model folder and the hardware.
GIVEN_TO_JOB, GIVEN_TO_ENGINE = 1, 3


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter: whether it must be given, and its annotation where the source has one."""

    required: bool
    annotation: ast.expr | None = None


@dataclass(frozen=True, slots=True)
class CallSignature:
    """Parameters by name, `None` where the source does not say; `open_ended` takes any other."""

    parameters: Mapping[str, Parameter] | None
    open_ended: bool = False


def of_job(dotted: str, definition: Definition | None) -> CallSignature:
    """Return the parameters of a job.

    Raises:
        LookupProblem: It is not a function that takes a context.
    """
    if definition is None or definition.decorator_list:
        return CallSignature(None)
    how = "write `def NAME(ctx, *, ...)`"
    if not isinstance(definition, ast.FunctionDef):
        raise LookupProblem(f"{shown(dotted)} is not a plain function", how)
    if not (definition.args.posonlyargs or definition.args.args or definition.args.vararg):
        raise LookupProblem(f"{shown(dotted)} takes no context", how)
    return _read(definition, GIVEN_TO_JOB)


def of_engine(dotted: str, definition: Definition | None) -> CallSignature:
    """Return the options of an engine.

    Raises:
        LookupProblem: It is not a class.
    """
    if definition is None or definition.decorator_list:
        return CallSignature(None)
    if not isinstance(definition, ast.ClassDef):
        raise LookupProblem(f"{shown(dotted)} is not a class", "an engine is one")
    inits = (n for n in definition.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    init = next(inits, None)
    return CallSignature(None) if init is None else _read(init, GIVEN_TO_ENGINE)


def wrong_parameters(
    signature: CallSignature, dotted: str, path: str, params: Mapping[str, Json]
) -> Iterator[Problem]:
    """Yield what is wrong with `params`, which stand at `path`, for the job `dotted`."""
    known = signature.parameters
    if known is None:
        return
    for name, value in params.items():
        if name in known:
            yield from _value(f"{path}.{name}", known[name], value)
        elif not signature.open_ended:
            what = f"{shown(dotted)} has no parameter {shown(name)}"
            yield Problem(f"{path}.{name}", what, choices(name, known, "parameters"))
    for name, parameter in known.items():
        if parameter.required and name not in params:
            what = f"{shown(dotted)} needs the parameter {shown(name)}"
            yield Problem(f"{path}.{name}", what, f"set {path}.{name}=VALUE")


def _value(path: str, parameter: Parameter, value: Json) -> Iterator[Problem]:
    if parameter.annotation is None:
        return
    for bad in misfits(path, value, parameter.annotation):
        if bad.allowed:
            hint = choices(str(bad.value), map(str, bad.allowed), "values")
            yield Problem(bad.path, f"{shown(bad.value)} is none of them", hint)
        else:
            yield Problem(bad.path, f"{shown(bad.value)} is not of type {bad.kind}", "change it")


def _read(function: ast.FunctionDef, handed: int) -> CallSignature:
    args = function.args
    positional = [*args.posonlyargs, *args.args]
    without_default = len(positional) - len(args.defaults)
    read = {
        arg.arg: Parameter(index < without_default, arg.annotation)
        for index, arg in enumerate(positional)
        if index >= handed
    }
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        read[arg.arg] = Parameter(default is None, arg.annotation)
    return CallSignature(read, open_ended=args.kwarg is not None)
