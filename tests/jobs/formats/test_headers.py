"""Where the tensors of a file that is written lie."""

from __future__ import annotations

import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs.formats import headers
from jobs.formats.headers import TYPES, Spec, TensorPlace

SPECS = st.lists(
    st.builds(
        Spec,
        st.sampled_from(sorted(TYPES.values(), key=str)),
        st.lists(st.integers(0, 9), max_size=3).map(tuple),
    ),
    max_size=8,
)


@given(SPECS)
def test_tensors_keep_their_order_but_for_odd_ones_and_lie_where_their_type_wants_them(
    made: list[Spec],
) -> None:
    specs = {f"t{number}": spec for number, spec in enumerate(made)}
    head, begins = headers.write(specs)
    assert all(begins[name] % spec.dtype.itemsize == 0 for name, spec in specs.items())
    even = [name for name, spec in specs.items() if spec.size % 8 == 0]
    assert [name for name in begins if name in even] == even == [*begins][: len(even)]
    with TemporaryDirectory() as folder:
        file = Path(folder, "file")
        file.write_bytes(head + bytes(headers.total(made)))
        read = headers.read(file)
    assert read == {name: TensorPlace(file, begins[name], spec) for name, spec in specs.items()}


def test_a_scale_follows_its_codes() -> None:
    specs = {
        "a": Spec(torch.float8_e4m3fn, (256, 256)),
        "a_scale_inv": Spec(torch.float32, (2, 2)),
        "b": Spec(torch.float8_e4m3fn, (128, 256)),
        "b_scale_inv": Spec(torch.float32, (1, 2)),
    }
    head, begins = headers.write(specs)
    ends = [begins[name] + spec.size for name, spec in specs.items()]
    assert [*begins] == [*specs]
    assert begins["a"] == len(head) == 8 + struct.unpack("<Q", head[:8])[0]
    assert ends[:-1] == [*begins.values()][1:]
