"""What is wrong with how a pool is emulated. Works on plain data, as `document_checks` does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from orchestrator.core.errors import Problem, shown
from orchestrator.core.nearest import choices
from orchestrator.core.spec.emulation import HOST_DEVICE, OWN, STAND_INS, Emulation, FaultType
from orchestrator.core.spec.stages import Json
from orchestrator.emulation.catalogue import catalogue

_OPERATOR = re.compile(r"\w+::\w+(\.\w+)?")
_PLAIN = Emulation()
# Names that torch gives to devices and backends of its own: no other can have them.
_TAKEN = {"device": frozenset({"cuda"}), "backend": frozenset(STAND_INS)}
_RAISED = frozenset({FaultType.RAISE.value, FaultType.DROP.value})
_TOLD = _RAISED | {FaultType.PRINT.value}
_MAY_TELL = frozenset({FaultType.ABORT.value, FaultType.EXIT.value})


def problems(pools: Mapping[str, Json]) -> Iterator[Problem]:
    """Yield what is wrong with the emulation of each of `pools`."""
    for name, pool in pools.items():
        emulation, chip = _in(pool, "emulation"), _in(pool, "accelerator")
        path = f"fleet.pools.{name}.emulation"
        yield from _name_problems(path, "device", emulation, chip)
        yield from _name_problems(path, "backend", emulation, chip)
        yield from _operator_problems(path, emulation)
        faults = emulation.get("faults")
        for number, fault in enumerate(faults if isinstance(faults, list) else []):
            if isinstance(fault, dict):
                yield from _fault_problems(f"{path}.faults.{number}", fault)


def _name_problems(
    path: str, what: str, emulation: Mapping[str, Json], chip: Mapping[str, Json]
) -> Iterator[Problem]:
    plain, own = str(getattr(_PLAIN, what)), chip.get(what)
    asked = emulation.get(what, plain)
    if asked == plain or not isinstance(own, str) or not isinstance(asked, str):
        return
    if asked not in {OWN, own}:
        hint = f"set {plain!r}, or {shown(own)}, which is the chip's"
        yield Problem(f"{path}.{what}", f"{shown(asked)} is not the {what} of this chip", hint)
    elif own in _TAKEN[what] and (what == "device" or asked != OWN):
        other = f", or {OWN!r} for one that stands in for it" if what == "backend" else ""
        hint = f"set {plain!r}: the faults come all the same{other}"
        problem = f"torch has a {what} {own!r} of its own, so it can't be emulated"
        yield Problem(f"{path}.{what}", problem, hint)


def _operator_problems(path: str, emulation: Mapping[str, Json]) -> Iterator[Problem]:
    for field in ("unsupported", "on_host"):
        names = emulation.get(field)
        for name in names if isinstance(names, list) else []:
            if not _OPERATOR.fullmatch(str(name)):
                yield Problem(
                    f"{path}.{field}", f"{shown(name)} is no operator", "as in 'aten::silu'"
                )
        if names and emulation.get("device", HOST_DEVICE) == HOST_DEVICE:
            what = "a plain CPU device lacks no operator"
            yield Problem(f"{path}.{field}", what, f"set emulation.device={OWN}")


def _fault_problems(path: str, fault: Mapping[str, Json]) -> Iterator[Problem]:
    if (fault.get("at_step") is None) == (fault.get("rate") is None):
        both = "neither" if fault.get("rate") is None else "both"
        yield Problem(path, f"sets {both} of 'at_step' and 'rate'", "set one of them")
    name, kind = fault.get("signature"), fault.get("what")
    if not isinstance(kind, str):
        return
    needs_text = kind in _TOLD
    texts = sum(fault.get(field) is not None for field in ("signature", "text"))
    if needs_text and texts != 1:
        which = "both" if texts else "neither"
        what = f"{kind!r} sets {which} of 'signature' and 'text'"
        yield Problem(path, what, "set one of them")
    elif texts > 1 and fault.get("what") in _MAY_TELL:
        yield Problem(path, f"{kind!r} sets both of 'signature' and 'text'", "set one")
    elif texts and not needs_text and fault.get("what") not in _MAY_TELL:
        what = f"{shown(kind)} tells nothing, but sets 'signature' or 'text'"
        yield Problem(path, what, "leave it out")
    yield from _error_problems(path, fault)
    if isinstance(name, str) and name not in catalogue():
        what = f"{shown(name)} is no documented error"
        yield Problem(f"{path}.signature", what, choices(name, catalogue(), "errors"))


def _error_problems(path: str, fault: Mapping[str, Json]) -> Iterator[Problem]:
    error, what = fault.get("error"), fault.get("what")
    if error is None:
        return
    if what not in _RAISED:
        yield Problem(f"{path}.error", f"{what!r} raises nothing", "leave it out")
    elif not str(error).isidentifier():
        hint = "as in 'ValueError', or a name of your own"
        yield Problem(f"{path}.error", f"{error!r} is no name of an exception", hint)


def _in(data: Json, key: str) -> Mapping[str, Json]:
    section = data.get(key) if isinstance(data, dict) else None
    return section if isinstance(section, dict) else {}
