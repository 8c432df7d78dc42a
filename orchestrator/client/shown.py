"""Values that a notebook shows as tables, and a terminal as text."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.jupyter import JupyterMixin

WIDTH = 120


class Shown(JupyterMixin, ABC):
    """A value with a picture of itself: what `rich` prints, a notebook shows, and `repr` says."""

    @abstractmethod
    def __rich__(self) -> RenderableType:
        """Return it as it is shown."""

    def __repr__(self) -> str:
        """Return the same as plain text."""
        console = Console(file=io.StringIO(), width=WIDTH, color_system=None, highlight=False)
        with console.capture() as capture:
            console.print(self.__rich__())
        lines = (line.rstrip() for line in capture.get().splitlines())
        return "\n".join(lines).strip("\n")

    def __rich_console__(self, console: Console, options: Any) -> Any:  # noqa: ANN401 - as Rich has it
        """Yield it, for a notebook, which asks by this name."""
        yield Group(self.__rich__())
