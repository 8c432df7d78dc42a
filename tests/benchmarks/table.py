"""A benchmark answers with rows; this prints them as one table.

A row compares what this product takes with what a bare yardstick takes, measured in the same
process run. `ratio` is `ours / theirs`; `goal` says what it, or `ours` where there is no
yardstick, must reach. Where rounds were taken, `noise` is within what half of their ratios lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter, process_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison. `theirs` and `ratio` are `None` where there is nothing to compare with."""

    name: str
    ours: float
    theirs: float | None = None
    unit: str = "s"
    ratio: float | None = None
    goal: str = ""
    noise: float | None = None


def compare(name: str, ours: float, theirs: float, *, unit: str = "s", goal: str = "") -> Row:
    """Return the row of `ours` against `theirs`."""
    return Row(name=name, ours=ours, theirs=theirs, unit=unit, ratio=ours / theirs, goal=goal)


def in_rounds(
    name: str, ours: Sequence[float], theirs: Sequence[float], *, unit: str = "s", goal: str = ""
) -> Row:
    """Return the row of the medians of rounds, which were taken in turns."""
    ratios = sorted(own / other for own, other in zip(ours, theirs, strict=True))
    low, ratio, high = quantiles(ratios, n=4)
    return Row(
        name=name,
        ours=median(ours),
        theirs=median(theirs),
        unit=unit,
        ratio=ratio,
        goal=goal,
        noise=(high - low) / 2,
    )


def seconds(act: Callable[[], object], times: int = 5) -> float:
    """Return the median wall time of `act`, in seconds."""
    return median(_once(act) for _ in range(times))


def cpu_seconds(act: Callable[[], object], server: Callable[[], float] = lambda: 0.0) -> float:
    """Return the CPU time of `act`, in seconds; `server` has that of who works for it so far."""
    here, there = process_time(), server()
    act()
    return process_time() - here + server() - there


def render(rows: Iterable[Row]) -> str:
    """Return `rows` as an aligned table."""
    head = ("BENCHMARK", "OURS", "THEIRS", "UNIT", "RATIO", "GOAL")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(_line(row, widths) for row in cells)


def _once(act: Callable[[], object]) -> float:
    start = perf_counter()
    act()
    return perf_counter() - start


def _cells(row: Row) -> tuple[str, ...]:
    noise = "" if row.noise is None else f" ±{row.noise:.2g}"
    figures = (f"{row.ours:.4g}", _figure(row.theirs), row.unit, _figure(row.ratio) + noise)
    return (row.name, *figures, row.goal or "-")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(cell.ljust(size) for cell, size in zip(cells, widths, strict=True)).rstrip()
