"""Which foreign readers read which types: no fewer than docs/formats.md says (some 3 minutes)."""

from __future__ import annotations

import pytest

from tests.jobs.formats import zoo
from tests.jobs.formats.readers import NOTHING, READ, weights_read

LEAST = {
    "types, every weight quantized or named": 184,
    "types, written": 182,
    f"bf16, transformers: {READ}": 181,
    **{f"{form}, compressed-tensors: {READ}": 179 for form in ("fp8_ue8m0", "int8", "mxfp8")},
    f"fp8_ue8m0, compressed-tensors: {NOTHING}": 3,
    f"fp8_ue8m0, transformers: {READ}": 173,
    f"int8, transformers: {READ}": 136,
    f"mxfp8, transformers: {READ}": 136,
}


@pytest.mark.chaos
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(3600)
def test_other_makers_readers_read_as_many_types_as_ever() -> None:
    counts = weights_read(zoo.TYPES)
    assert counts["types"] == len(zoo.TYPES)
    assert {name: counts[name] for name, least in LEAST.items() if counts[name] < least} == {}
