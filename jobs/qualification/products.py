"""Matrix products against a float64 reference, for each kind of number, and their rate."""

from __future__ import annotations

import math

import torch

from jobs.qualification.bench import FAILED, LIMITED, Bench, one_line

# The greatest error, as a share of the largest result, of sums that are kept in float32.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}
_ODD = (1, 17, 129)  # rows: what is no multiple of a tile
_ROWS = 64


def check_products(bench: Bench, device: torch.device) -> None:
    """Look whether products are right, how fast they are, and whether a NaN stays one."""
    size = 4096 if bench.real else 192
    for dtype in TOLERANCES:
        name = str(dtype).removeprefix("torch.")
        try:
            _check(bench, device, dtype, name, size)
        except NotImplementedError as error:
            bench.say("products", f"{name} {device}", FAILED, note=one_line(error))
    _check_specials(bench, device)


def _check(bench: Bench, device: torch.device, dtype: torch.dtype, name: str, size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    left = torch.randn(size, size, generator=generator).to(dtype)
    right = torch.randn(size, size, generator=generator).to(dtype)
    there = right.to(device)
    subject, tolerance = f"{name} {device}", TOLERANCES[dtype]
    errors = []
    for rows in (*_ODD, size):
        out = (left[:rows].to(device) @ there).cpu()
        some = slice(0, rows, max(rows // _ROWS, 1))
        errors.append(error_of(out[some], left[:rows][some].double() @ right.double()))
    worst = max(errors, key=lambda error: (math.isnan(error), error))
    wrong = not worst <= tolerance
    status, note = FAILED if wrong else "passed", note_of(worst, tolerance)
    bench.say("products", subject, status, figure=worst, note=note)
    here = left.to(device)
    taken = bench.seconds(lambda: here @ there, repeats=3 if bench.quick else 10, device=device)
    rate = 2 * size**3 / taken / 1e12
    spread = 1.5 if bench.real else None
    bench.say("product rate", subject, figure=rate, unit="TFLOP/s", spread=spread)


def note_of(worst: float, tolerance: float) -> str:
    """Return an error in words."""
    return f"error {worst:.1e} of the largest, {tolerance:.0e} is allowed"


def error_of(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the largest error as a share of the largest value; NaN where anything is one."""
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


def _check_specials(bench: Bench, device: torch.device) -> None:
    """Some chips turn infinity into the largest number, and NaN into 0: none would be seen."""
    one = torch.ones(2, 2, device=device)
    for name, value, kept in (("NaN", math.nan, torch.isnan), ("infinity", math.inf, torch.isinf)):
        out = (torch.full((2, 2), value, device=device) @ one).cpu()
        if not bool(kept(out).all()):
            note = f"{name} becomes {float(out[0, 0])!r}: a check for {name} is blind here"
            bench.say("products", f"{name} {device}", LIMITED, note=note)


def compare(
    bench: Bench, check: str, found: float, published: float | None, unit: str, *, least: float
) -> None:
    """Say where a measured figure of a real chip falls short of the published one."""
    if bench.real and published and found < published * least:
        note = f"{found:.3g} {unit} of {published:g} {unit} that are published"
        bench.say(check, "against published", LIMITED, note=note)
