"""How a pool is emulated whose chips are not there, and how those chips fail. Frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isnan
from types import MappingProxyType

OWN = "own"  # the name that the chip itself has
HOST_DEVICE = "cpu"  # of torch, for work on the host's cores
# Backends that torch has itself, and the name that an emulated one goes by.
STAND_INS: Mapping[str, str] = MappingProxyType({"nccl": "emulated_nccl"})


class FaultType(StrEnum):
    """What an emulated chip can do to the work on it."""

    RAISE = "raise"
    DIE = "die"
    HANG = "hang"
    SLOW = "slow"
    NAN = "nan"
    DROP = "drop"
    DELAY = "delay"
    PRINT = "print"
    ABORT = "abort"
    EXIT = "exit"
    CORRUPT = "corrupt"
    STUCK = "stuck"
    LINK = "link"

    @classmethod
    def _missing_(cls, value: object) -> FaultType | None:
        """Take the number for its name: `nan` without quotes is one in YAML and in Hydra."""
        return cls.NAN if isinstance(value, float) and isnan(value) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A failure that an emulated chip has, at a step or at random, but the same each time.

    Attributes:
        what: `raise` an error, `die` by SIGKILL, `hang`, be `slow`, give `nan`, `drop` a
            collective (it never completes), `delay` collectives; as native code does, `print` on
            file descriptor 2 and go on, `abort` by SIGABRT, `exit` past all handlers. Silently:
            `corrupt` matrix products (every third row is tripled), have bit 30 `stuck` at 0 in one
            word of each 16 MiB (of tensors from 1 MiB on), have a slow `link` to the others.
        signature: Documented error that `raise` and `drop` end with, and that the native ones
            print, by its name in the catalogue.
        text: Error of one's own, in place of a signature. `abort` and `exit` need none.
        error: Type of what `raise` and `drop` raise: one of Python's, or any other name.
        code: Status that `exit` ends the process with.
        at_step: Step, as the job counts, after which it comes; 0 is before the job begins.
        rate: Probability of each step, in place of `at_step`.
        seed: What the draws of `rate` come from.
        rank: The worker that it hits; all where `None`.
        attempts: Attempts of a stage, from the first, that it hits; all where `None`.
        stages: Stages that it hits; all where empty.
        steps: For how many steps `slow`, `delay`, `nan` and what is silent last.
        factor: How many times as long `slow` makes a step.
        seconds: How much later `delay` starts a collective, or a `link` ends one; when a `drop`
            is noticed.
    """

    what: FaultType
    signature: str | None = None
    text: str | None = None
    error: str = "RuntimeError"
    code: int = 1
    at_step: int | None = None
    rate: float | None = None
    seed: int = 0
    rank: int | None = None
    attempts: int | None = None
    stages: tuple[str, ...] = ()
    steps: int = 1
    factor: float = 10.0
    seconds: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulation:
    """A pool whose chips are not there: the host's cores do its work, and everything says so.

    Attributes:
        device: torch device of the work: `cpu`, or the chip's own name (also `own`), which is
            then a device made for the purpose. `cuda` can't be made: torch has it already.
        backend: Backend of collectives: `gloo`, or the chip's own name (also `own`), which is
            then gloo by another name that reduces the number types that the chip's own does.
            For `nccl`, which torch has already, `own` is `emulated_nccl`.
        unsupported: Operators that the chip lacks (`aten::silu`); needs the chip's own device.
        on_host: Operators that its maker's software does on the host, with a warning; as above.
        faults: How the chips fail.
    """

    device: str = "cpu"
    backend: str = "gloo"
    unsupported: tuple[str, ...] = ()
    on_host: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
