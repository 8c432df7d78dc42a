"""A replica sees its own chips alone, also where Ray has no manager for them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.adapters.rayserve.replica_chips import variables
from orchestrator.core.errors import ServingError
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.stages import Needs
from tests.build import accelerator, deployment, pool

CHIP = accelerator(resource="MLU", visible_devices="MLU_VISIBLE_DEVICES", device="mlu")
MADE = replace(deployment("chat"), pool=pool("mlu", chip=CHIP), needs=Needs(devices=2))


def test_chips_are_shown_in_the_order_of_their_numbers() -> None:
    assert variables(MADE, ["10", "2"]) == {"MLU_VISIBLE_DEVICES": "2,10"}


def test_one_that_would_see_the_chips_of_others_is_refused() -> None:
    with pytest.raises(
        ServingError, match="Ray does not number the chips 'MLU' of pool 'mlu'; start its nodes"
    ):
        variables(MADE, [])
    whole = replace(MADE, needs=Needs(devices=8))
    assert variables(whole, []) == {}


def test_what_has_no_chip_or_an_emulated_one_is_shown_none() -> None:
    assert variables(replace(MADE, needs=Needs(devices=0)), ["1"]) == {}
    emulated = replace(MADE, pool=replace(MADE.pool, emulation=Emulation()))
    assert variables(emulated, ["1"]) == {}
