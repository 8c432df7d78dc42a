"""Whether matrix products are exact, element by element, and how fast they are.

Whole numbers leave no tolerance to hide in. Each worker draws its own, and repeats each product:
a fault may come now and then. Products that are too large for the host to do again are checked by
the sums of their rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from jobs.qualification import exact
from jobs.qualification.bench import FAILED, LIMITED, PASSED, Bench, one_line
from jobs.qualification.coverage import missing
from jobs.qualification.number_types import NumberType, Product, number_types_of
from jobs.training.order import mix

_ODD = (1, 17, 129)  # rows: what is no multiple of a tile
# Rows and columns: the host does the first two again, and all sums of the last two.
_WIDE, _SMALL, _FEW, _LARGE, _LARGE_OF_HOST = 2048, 192, 128, 16_384, 512


def check_products(bench: Bench, device: torch.device, formats: Sequence[str]) -> None:
    """Look whether the products that the pool relies on are right, and whether a NaN stays one."""
    for kind in number_types_of(formats):
        check_product(bench, device, kind)
    _check_sums(bench, device)
    _check_specials(bench, device)


def check_product(bench: Bench, device: torch.device, kind: NumberType) -> None:
    """Look at every element of products of `kind`, several times.

    What raises is a fault of the device, unless it says that there is no such product.
    """
    subject = f"{kind.name} {device}"
    if kind.product is None:
        note = "torch has no numbers of this format: nobody has tested them"
        bench.say("products", subject, kind.lacking, note=note, roles=kind.roles)
        return
    try:
        note = _repeated(bench, device, kind, kind.product)
    except (RuntimeError, ValueError) as error:
        lacks = missing(error)
        said = "torch has no such product here, so nobody has tested it" if lacks else "raises"
        status = kind.lacking if lacks else FAILED
        note = f"{said}: {one_line(error)}"
        bench.say("products", subject, status, note=note, roles=kind.roles)
        return
    status = FAILED if note else PASSED
    bench.say("products", subject, status, note=note, roles=kind.roles)


def _repeated(bench: Bench, device: torch.device, kind: NumberType, multiply: Product) -> str:
    """Return how products differ from what is right; nothing where none does. Say their rate."""
    size, inner = _sides(bench, kind)
    factors = _factors(kind, size, inner, seed=_seed(bench, device))
    lhs = factors.lhs.to(kind.dtype).to(device)
    rhs = factors.rhs.to(kind.dtype).t().contiguous().t() if kind.code else factors.rhs
    rhs = rhs.to(kind.dtype).to(device)
    expected = factors.product().to(kind.result)
    on_device = expected.to(device)
    for rows in () if kind.code else _ODD:  # kernels of codes want multiples of 16
        note = _differs(multiply(lhs[:rows], rhs).cpu(), expected[:rows])
        if note:
            return f"of {rows} rows {note}"
    note = _differs(multiply(lhs, rhs).cpu(), expected)
    repeats = (8 if bench.quick else 64) if bench.real else 3
    bad = 0
    for _ in range(repeats):
        bench.alive()
        bad += not torch.equal(multiply(lhs, rhs), on_device)
    if note or bad:
        return f"{note or 'right at first'}; {bad} of {repeats} repeats are wrong"
    times = 4 if bench.real or not kind.code else 1
    large = lhs.repeat(times, 1), rhs.t().repeat(times, 1).t()
    _tell_rate(bench, device, kind, lambda: multiply(*large))
    return ""


def _sides(bench: Bench, kind: NumberType) -> tuple[int, int]:
    """Return how large factors are, and along what they are summed.

    A host that plays a chip multiplies codes one by one: of those it has few.
    """
    if bench.real:
        return _WIDE, exact.LONGEST
    side = _FEW if kind.code else _SMALL
    return side, side


def _tell_rate(
    bench: Bench, device: torch.device, kind: NumberType, act: Callable[[], Tensor]
) -> None:
    """Say how fast a product is that is so large that beginning it takes no time."""
    taken = bench.seconds(act, repeats=3 if bench.quick else 10, device=device)
    rows, columns = act().shape
    _, inner = _sides(bench, kind)
    bench.say(
        "product rate",
        f"{kind.name} {device}",
        figure=2 * rows * inner * columns / taken / 1e12,
        unit="TFLOP/s",
        spread=1.5 if bench.real else None,
        roles=kind.roles,
    )


def _factors(kind: NumberType, size: int, inner: int, *, seed: int) -> exact.Factors:
    if kind.largest is None:
        return exact.paired(size, inner, size, seed=seed)
    return exact.plain(size, inner, size, seed=seed, largest=kind.largest)


def _seed(bench: Bench, device: torch.device) -> int:
    """Return a seed of this chip's own."""
    return mix(mix(bench.ctx.seed, bench.ctx.rank), device.index or 0)


def _differs(actual: Tensor, expected: Tensor) -> str:
    """Return which elements [rows, columns] differ; nothing where none does, NaN does."""
    wrong = (actual != expected).nonzero()
    if not len(wrong):
        return ""
    row, column = wrong[0].tolist()
    said = f"{actual[row, column].item():g} for {expected[row, column].item():g}"
    return f"{len(wrong)} of {actual.numel()} elements are wrong, as {said} in row {row}"


def _check_sums(bench: Bench, device: torch.device) -> None:
    """Check a large product in bfloat16 by the sums of its rows and of its columns."""
    size, inner = (_LARGE, exact.LONGEST) if bench.real else (_LARGE_OF_HOST, _SMALL)
    factors = exact.paired(size, inner, size, seed=_seed(bench, device) + 1)
    subject = f"{size} rows {device}"
    try:
        out = factors.lhs.to(device).bfloat16() @ factors.rhs.to(device).bfloat16()
        sums = [out.float().sum(side).cpu() for side in (1, 0)]
    except (RuntimeError, ValueError) as error:
        if not missing(error):
            bench.say("products", subject, FAILED, note=f"raises: {one_line(error)}")
        return  # that bfloat16 is not there has been said
    bad = [
        int((actual.double() != expected).sum())
        for actual, expected in zip(sums, factors.sums(), strict=True)
    ]
    wrong = f"the sums of {bad[0]} rows and {bad[1]} columns are wrong" if any(bad) else ""
    bench.say("products", subject, FAILED if wrong else PASSED, note=wrong)


def _check_specials(bench: Bench, device: torch.device) -> None:
    """Some chips turn infinity into the largest number, and NaN into 0: none would be seen."""
    ones = torch.ones(2, 2, device=device)
    for name, value, kept in (("NaN", math.nan, torch.isnan), ("infinity", math.inf, torch.isinf)):
        out = (torch.full((2, 2), value, device=device) @ ones).cpu()
        if not bool(kept(out).all()):
            note = f"{name} becomes {float(out[0, 0])!r}: a check for {name} is blind here"
            bench.say("products", f"{name} {device}", LIMITED, note=note)


def compare(
    bench: Bench, check: str, measured: float, published: float | None, unit: str, *, least: float
) -> None:
    """Say where a measured figure of a real chip falls short of the published one."""
    if bench.real and published and measured < published * least:
        note = f"{measured:.3g} {unit} of {published:g} {unit} that are published"
        bench.say(check, "against published", LIMITED, note=note)
