"""Where operators and collectives ask whether a fault is due. One chip a process.

`before` comes before every operator on the emulated device, `after` gets the result of every
matrix product and returns what stands for it, `memory` gets every tensor that an operator has
written, `collective` comes before every collective, `link` when one is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Hooks:
    """What is due. `None` is nothing, which costs next to nothing."""

    before: Callable[[], None] | None = None
    after: Callable[[Any], Any] | None = None
    memory: Callable[[Any], None] | None = None
    collective: Callable[[], None] | None = None
    link: Callable[[], None] | None = None

    def clear(self) -> None:
        """Let nothing be due."""
        self.before = self.after = self.memory = self.collective = self.link = None


hooks = Hooks()
