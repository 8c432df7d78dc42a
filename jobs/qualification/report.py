"""What all workers found: one row for each subject, as a table, as JSON, as metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median

from jobs.qualification.bench import FAILED, LIMITED, PASSED, SKIPPED, Bench, Finding
from orchestrator.job import Metrics

NAME, TABLE_NAME = "report.json", "qualification.txt"
_ORDER = (SKIPPED, PASSED, LIMITED, FAILED)  # the worst comes last


@dataclass(frozen=True, slots=True)
class Row:
    """A subject over all workers: the worst of what they found, and the figures' spread."""

    finding: Finding
    least: float | None = None
    most: float | None = None


def finish(bench: Bench) -> Metrics:
    """Bring together what all workers found; rank 0 tells it. Return how many ended how."""
    gathered = bench.group.gather(json.dumps([asdict(finding) for finding in bench.findings]))
    findings = [
        Finding(**{**fields, "roles": tuple(fields["roles"])})
        for text in gathered
        for fields in json.loads(text)
    ]
    rows = merged(findings)
    counts = {f"qualification/{status}": float(n) for status, n in _counts(rows).items()}
    if bench.ctx.rank == 0:
        lines = list(table(rows, bench))
        for line in lines:
            bench.ctx.log(line)
        bench.ctx.report(TABLE_NAME, "\n".join([*lines, ""]))
        values = dict(figures(rows, emulated=bench.ctx.hardware.emulated))
        bench.ctx.metrics({**values, **counts}, step=bench.steps)
        text = json.dumps(as_json(rows, bench), indent=2)
        (bench.ctx.output / NAME).write_text(f"{text}\n", "utf-8")
    return counts


def merged(findings: Sequence[Finding]) -> list[Row]:
    """Return one row for each subject, in the order in which they came up."""
    subjects: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        subjects.setdefault((finding.check, finding.subject), []).append(finding)
    return [_row(group) for group in subjects.values()]


def _row(group: Sequence[Finding]) -> Row:
    worst = max(group, key=lambda finding: _ORDER.index(finding.status))
    measured = [finding for finding in group if finding.figure is not None]
    if not measured:
        return Row(_named(worst, group))
    ordered = sorted(measured, key=lambda finding: finding.figure or 0.0)
    best, last = (ordered[0], ordered[-1]) if worst.unit == "s" else (ordered[-1], ordered[0])
    row = replace(
        _named(worst, group), figure=median(finding.figure or 0.0 for finding in measured)
    )
    behind = _behind(best, last)
    if worst.status == PASSED and behind:
        row = replace(row, status=LIMITED, note=behind, rank=last.rank)
    return Row(row, ordered[0].figure, ordered[-1].figure)


def _named(worst: Finding, group: Sequence[Finding]) -> Finding:
    """Return the finding with the ranks that share its fate, where not all of them do."""
    if worst.status in (PASSED, SKIPPED) or len(group) == 1:
        return worst
    ranks = sorted({finding.rank for finding in group if finding.status == worst.status})
    which = ", ".join(map(str, ranks))
    return replace(worst, note=f"{worst.note} (rank {which})")


def _behind(best: Finding, last: Finding) -> str:
    """Return who is how far behind, where that is more than may be."""
    best_figure, last_figure = best.figure or 0.0, last.figure or 0.0
    if best.spread is None or best.rank == last.rank or min(best_figure, last_figure) <= 0:
        return ""
    times = max(best_figure, last_figure) / min(best_figure, last_figure)
    if times <= best.spread:
        return ""
    return (
        f"rank {last.rank} is the slowest: {last_figure:.3g} {last.unit}, "
        f"{best_figure:.3g} {best.unit} on rank {best.rank}"
    )


# --- how it is told -----------------------------------------------------------------------------


def table(rows: Sequence[Row], bench: Bench) -> Iterator[str]:
    """Yield the lines of a table."""
    hardware = bench.ctx.hardware
    yield f"Qualification of {hardware.accelerator} in pool {hardware.pool!r}"
    if hardware.emulated:
        yield "The chip is emulated: every figure is that of the host in its place."
    cells: list[tuple[str, ...]] = [
        ("CHECK", "SUBJECT", "STATUS", "FIGURE", "LEAST", "MOST", "NOTE")
    ]
    for row in rows:
        finding = row.finding
        numbers = (_number(value, finding.unit) for value in (finding.figure, row.least, row.most))
        cells.append((finding.check, finding.subject, finding.status, *numbers, finding.note))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]) - 1)]
    for line in cells:
        padded = "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=False))
        yield f"{padded}  {line[-1]}".rstrip()


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.3g} {unit}".strip()


def as_json(rows: Sequence[Row], bench: Bench) -> dict[str, object]:
    """Return the report as plain values."""
    hardware = bench.ctx.hardware
    return {
        "pool": hardware.pool,
        "accelerator": hardware.accelerator,
        "emulated": hardware.emulated,
        "figures": "of the host in the chip's place" if hardware.emulated else "of the chip",
        "workers": bench.ctx.world_size,
        "findings": [
            {**asdict(row.finding), "least": row.least, "most": row.most} for row in rows
        ],
    }


def figures(rows: Sequence[Row], *, emulated: bool) -> Iterator[tuple[str, float]]:
    """Yield the metrics of a report; those of an emulated pool are called the host's."""
    whose = "host" if emulated else "chip"
    for row in rows:
        finding = row.finding
        if finding.figure is not None:
            name = f"{whose}/{finding.check} {finding.subject}".replace(":", "-")
            yield name, finding.figure


def _counts(rows: Sequence[Row]) -> Mapping[str, int]:
    return {status: sum(row.finding.status == status for row in rows) for status in _ORDER}
