"""Engine servers as data: on which chips one runs, and over how many it spreads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.engines import Maker, Parallel, Split, is_server, option_name, split_of
from tests.core.engine_values import CHIPS, HOST, SPEC


def split(options: dict[str, Any], devices: int) -> Split:
    return split_of(SPEC, SPEC.all_options(CHIPS, options), devices)


def test_a_name_with_dots_is_a_class_and_one_without_a_server() -> None:
    assert is_server("vllm")
    assert not is_server("jobs.engines.embedded.EmbeddedEngine")


def test_all_chips_of_a_replica_hold_the_tensors_unless_options_say_otherwise() -> None:
    assert split({}, 4) == Split(tensor=4)
    assert split({}, 0) == Split()
    assert split({"dp": 2}, 4) == Split(tensor=2, data=2)
    assert split({"pp": 2, "tp": 2}, 4) == Split(tensor=2, pipeline=2)
    assert split({"--d_p": 2, "dp": 4}, 4) == Split(data=4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tp": 2}, r"'fast' uses 2 \(2 x 1 x 1: tensor, pipeline, data\) of the 4 chips"),
        ({"dp": 3}, r"uses 3 \(1 x 1 x 3"),
        ({"tp": "two"}, "tp='two' is no number of chips"),
        ({"pp": 0}, "pp=0 is no number of chips"),
    ],
)
def test_chips_that_would_idle_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        split(options, 4)


def test_an_engine_that_knows_no_parallelism_uses_one_chip() -> None:
    alone = replace(SPEC, parallel=Parallel())
    assert split_of(alone, {}, 1) == Split()
    with pytest.raises(ValueError, match="uses 1"):
        split_of(alone, {}, 2)


def test_the_host_s_cores_are_a_maker_of_their_own_and_a_stand_in_is_none() -> None:
    assert SPEC.on(CHIPS) == Maker()
    assert SPEC.on(HOST) == SPEC.makers["cpu"]
    stand_in = replace(CHIPS, emulation=Emulation(device="own"))
    assert SPEC.on(stand_in) is None
    assert SPEC.reads("fp8", CHIPS)
    assert SPEC.reads("bf16", HOST)
    assert not SPEC.reads("fp8", HOST)


def test_how_many_requests_at_once_is_the_engine_s_own_word() -> None:
    assert SPEC.requests_at_once({}) == 64
    assert SPEC.requests_at_once({"max_seqs": 8}) == 8
    assert SPEC.requests_at_once({"max-seqs": "many"}) == 64


def test_groups_of_data_parallelism_may_share_the_chips_of_tensors() -> None:
    sharing = replace(SPEC, parallel=replace(SPEC.parallel, shared="attention-dp"))
    given = {"dp": 4, "attention-dp": True}
    assert split_of(sharing, given, 4) == Split(tensor=4, data=4, shared=True)
    with pytest.raises(ValueError, match="uses 8"):
        split_of(sharing, {"dp": 2, "tp": 4}, 4)


def test_a_name_of_an_option_has_dashes_and_past_a_dot_the_keys_that_it_has() -> None:
    assert option_name("--max_len") == "max-len"
    assert option_name("compile_config.max_size.x_y") == "compile-config.max_size.x_y"
