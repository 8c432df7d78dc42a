"""How a pool is emulated: what is taken, and what is refused in one clear line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from orchestrator.core.errors import Problem
from orchestrator.core.settings import Settings
from orchestrator.core.spec.emulation import Fault, FaultType

EMULATION = "fleet.pools.ascend.emulation"
FAULT = f"{EMULATION}.faults.0"


def faults(text: str) -> str:
    return f"{EMULATION}.faults=[{{{text}}}]"


def test_a_pool_says_its_faults_and_gaps(compose: Callable[..., Settings]) -> None:
    emulation = f"{EMULATION}={{device: own, backend: hccl, unsupported: ['aten::silu'], faults: "
    fault = "[{what: raise, signature: hccl_timeout, at_step: 450, rank: 1}]}"
    found = compose(emulation + fault).fleet.pools["ascend"]
    assert (found.device, found.backend) == ("npu", "hccl")
    assert found.emulation is not None
    assert found.emulation.unsupported == ("aten::silu",)
    expected = Fault(what=FaultType.RAISE, signature="hccl_timeout", at_step=450, rank=1)
    assert found.emulation.faults == (expected,)


def test_a_fault_has_words_and_a_type_of_ones_own(compose: Callable[..., Settings]) -> None:
    said = "{what: raise, at_step: 3, error: VendorPanic, text: 'unit 7 said 0x5b'}"
    silent = "{what: exit, rate: 0.1, code: 77}"
    found = compose(f"{EMULATION}.faults=[{said}, {silent}]").fleet.pools["ascend"]
    assert found.emulation is not None
    first, second = found.emulation.faults
    assert (first.error, first.text) == ("VendorPanic", "unit 7 said 0x5b")
    assert (second.code, second.rate, second.text) == (77, 0.1, None)


@pytest.mark.parametrize("word", ["nan", "'nan'", "NaN"])
def test_a_fault_that_is_called_as_a_number_is_needs_no_quotes(
    compose: Callable[..., Settings], word: str
) -> None:
    found = compose(faults(f"what: {word}, at_step: 3")).fleet.pools["ascend"]
    assert found.emulation is not None
    assert [fault.what for fault in found.emulation.faults] == [FaultType.NAN]


def test_the_step_of_a_shipped_fault_is_moved_by_one_override(
    compose: Callable[..., Settings],
) -> None:
    found = compose("experiment=ascend_breaks", f"{FAULT}.at_step=7").fleet.pools["ascend"]
    assert found.emulation is not None
    assert [fault.at_step for fault in found.emulation.faults] == [7]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (f"{EMULATION}.device=mlu", f"{EMULATION}.device: 'mlu' is not the device of this chip; "),
        (f"{EMULATION}.backend=cncl", f"{EMULATION}.backend: 'cncl' is not the backend of this "),
        (
            "fleet.pools.nvidia.emulation.device=own",
            "fleet.pools.nvidia.emulation.device: torch has a device 'cuda' of its own, so it ",
        ),
        (
            "fleet.pools.nvidia.emulation.backend=nccl",
            "fleet.pools.nvidia.emulation.backend: torch has a backend 'nccl' of its own, so it ",
        ),
        (
            f"{EMULATION}={{device: npu, unsupported: [silu]}}",
            f"{EMULATION}.unsupported: 'silu' is no operator; as in 'aten::silu'",
        ),
        (
            f"{EMULATION}.on_host=['aten::isin']",
            f"{EMULATION}.on_host: a plain CPU device lacks no operator; set emulation.device=own",
        ),
        (faults("what: hang"), f"{FAULT}: sets neither of 'at_step' and 'rate'; set one of them"),
        (faults("what: hang, at_step: 1, rate: 0.1"), f"{FAULT}: sets both of 'at_step' and "),
        (faults("what: hang, rate: 1.5"), f"{FAULT}.rate: 1.5 is out of bounds; 0 to 1"),
        (faults("what: hang, at_step: -1"), f"{FAULT}.at_step: -1 is out of bounds; at least 0"),
        (faults("what: explode, at_step: 1"), f"{FAULT}.what: 'explode' is none of its values; "),
        (faults("what: raise, at_step: 1"), f"{FAULT}: 'raise' sets neither of 'signature' and "),
        (
            faults("what: drop, at_step: 1, text: a, signature: hccl_timeout"),
            f"{FAULT}: 'drop' sets both of 'signature' and 'text'; set one of them",
        ),
        (faults("what: die, at_step: 1, text: a"), f"{FAULT}: 'die' tells nothing, but sets "),
        (
            faults("what: raise, at_step: 1, signature: hccl_timout"),
            f"{FAULT}.signature: 'hccl_timout' is no documented error; did you mean 'hccl_timeo",
        ),
        (faults("what: print, at_step: 1"), f"{FAULT}: 'print' sets neither of 'signature' and "),
        (
            faults("what: exit, at_step: 1, text: a, signature: hccl_timeout"),
            f"{FAULT}: 'exit' sets both of 'signature' and 'text'; set one",
        ),
        (faults("what: exit, at_step: 1, code: 256"), f"{FAULT}.code: 256 is out of bounds; 0 to"),
        (
            faults("what: print, at_step: 1, text: a, error: ValueError"),
            f"{FAULT}.error: 'print' raises nothing; leave it out",
        ),
        (
            faults("what: raise, at_step: 1, text: a, error: 'Not Good'"),
            f"{FAULT}.error: 'Not Good' is no name of an exception; as in 'ValueError', or a name",
        ),
        (faults("what: slow, at_step: 1, factor: 0.5"), f"{FAULT}.factor: 0.5 is out of bounds; "),
    ],
)
def test_nonsense_is_refused_in_one_line(
    refused: Callable[..., Sequence[Problem]], override: str, line: str
) -> None:
    (problem,) = refused(override)
    assert str(problem).startswith(line)


def test_what_has_the_wrong_form_is_told_of_once(
    refused: Callable[..., Sequence[Problem]],
) -> None:
    assert len(refused(f"{EMULATION}.faults=[3]")) == 1
    assert len(refused(f"{EMULATION}.faults=3")) == 1
    assert len(refused(f"{EMULATION}=3")) == 1
