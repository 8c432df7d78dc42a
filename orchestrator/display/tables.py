"""Tables on the terminal. Columns follow SkyPilot's. Colours only where a terminal shows them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from orchestrator.core.text import visible

STYLES = {
    "succeeded": "green",
    "up": "green",
    "ok": "green",
    "running": "cyan",
    "waiting": "yellow",
    "deciding": "yellow",
    "paused": "yellow",
    "cancelling": "yellow",
    "busy": "yellow",
    "warning": "yellow",
    "failed": "red",
    "lost": "red",
    "down": "red",
    "error": "red",
}
PIPED_WIDTH = 200
AGES = 1000 * 365.25 * 86_400


class Console(RichConsole):
    """A console whose texts are seen, not obeyed: jobs and exceptions wrote parts of them."""

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 - as Rich has it
        """Print `objects`; control characters in texts are shown as escapes."""
        super().print(*(visible(o) if isinstance(o, str) else o for o in objects), **options)


def console(*, stderr: bool = False) -> Console:
    """Return a console; when piped it is wide, so that no row is folded."""
    output = Console(stderr=stderr, highlight=False)
    return (
        output
        if output.is_terminal
        else Console(stderr=stderr, highlight=False, width=PIPED_WIDTH)
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table in SkyPilot's manner; columns of figures are set to the right."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        figures = column.startswith(("$", "#")) or column in {"DEVICES", "NODES", "FREE", "COST"}
        grid.add_column(column, justify="right" if figures else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(_cell(column, text) for column, text in zip(columns, row, strict=True)))
    return grid


def _cell(column: str, text: str) -> Text:
    return Text(visible(text), style=STYLES.get(text.lower(), "") if column == "STATUS" else "")


def as_json(value: object) -> str:
    """Return `value` as JSON that every parser reads: what is no finite number is null there."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def dollars(amount: float | None) -> str:
    """Return an amount for a table; a dash where it is unknown."""
    if amount is None:
        return "-"
    return f"{amount:,.2f}" if amount < 1000 else f"{amount:,.0f}"  # noqa: PLR2004 - cents end here


def duration(seconds: float | None) -> str:
    """Return a time span as people write it (`2h 05m`, `3m 07s`, `12s`)."""
    if seconds is None or math.isnan(seconds):
        return "-"
    if seconds >= AGES:
        return "ages"
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def useful_commands(lines: Sequence[tuple[str, str]]) -> Text:
    """Return the block that ends a command's output: what to type next."""
    width = max(len(what) for what, _ in lines)
    text = Text("\nUseful commands\n", style="bold")
    for what, command in lines:
        text.append(f"  {what:<{width}}  ", style="dim")
        text.append(f"{visible(command)}\n", style="not bold")
    text.rstrip()
    return text
