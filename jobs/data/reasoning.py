"""Opens reasoning-gym, also where pycosat is missing.

`import reasoning_gym` imports every family of tasks, and one of them (logic puzzles) imports the
SAT solver pycosat, which ships no wheel and wants a C compiler. Arithmetic needs no SAT solver. So
where pycosat is not installed, a stand-in takes its name before the import; whoever calls it is
told what to install.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Protocol, cast

Entry = Mapping[str, Any]


class Gym(Protocol):
    """What is used of reasoning-gym."""

    def create_dataset(self, name: str, **options: object) -> Any:  # noqa: ANN401 - foreign type
        """Make a procedural data set: a sequence of entries that can score an answer."""
        ...

    def get_score_answer_fn(self, name: str) -> Callable[[str, Entry], float]:
        """Return the scorer of a data set by its name."""
        ...


def gym() -> Gym:
    """Import reasoning-gym and return it."""
    if "pycosat" not in sys.modules and importlib.util.find_spec("pycosat") is None:
        sys.modules["pycosat"] = _StandIn("pycosat")
    return cast("Gym", importlib.import_module("reasoning_gym"))


def scorer(task: str) -> Callable[[str, Entry], float]:
    """Return reasoning-gym's own scorer of `task`: (answer, entry) -> 0..1."""
    return gym().get_score_answer_fn(task)


class _StandIn(ModuleType):
    """Takes the place of a module that is not installed."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(
            f"{self.__name__}.{name} is not available: {self.__name__} is not installed; "
            f"install it (it needs a C compiler) to use tasks that call a SAT solver"
        )
