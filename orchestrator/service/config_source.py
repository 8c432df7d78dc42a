"""Where a config comes from: Hydra's overrides, and the folder and name of the primary config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, TypeAlias, TypedDict

from orchestrator import wiring
from orchestrator.core.settings import Settings
from orchestrator.core.spec.hardware import Fleet
from orchestrator.core.spec.plan import Plan
from orchestrator.core.spec.stages import Pipeline

PRIMARY = "config"
Part: TypeAlias = Literal["job", "hydra", "all"]


class _Place(TypedDict):
    config_dir: Path | None
    config_name: str


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """A config as somebody names it: `overrides` as Hydra has them, and where it lies.

    A `pipeline` or a `fleet` that was built in Python stands in the place of the one that is
    composed.
    """

    overrides: tuple[str, ...] = ()
    config_dir: Path | None = None
    config_name: str = PRIMARY
    pipeline: Pipeline | None = None
    fleet: Fleet | None = None

    def settings(self) -> Settings:
        """Compose and parse it.

        Raises:
            ConfigError: With all problems.
        """
        return wiring.settings(self.overrides, self.config_dir, self.config_name, self._built)

    def planned(self) -> tuple[Settings, Plan]:
        """Compose, parse and plan it.

        Raises:
            ConfigError: With all problems, those of the plan too.
        """
        return wiring.planned(self.overrides, self.config_dir, self.config_name, self._built)

    def changed(self, *overrides: str) -> Self:
        """Return the same with other overrides."""
        return replace(self, overrides=overrides)

    def combinations(self) -> Sequence[ConfigSource]:
        """Return one for each combination of a sweep.

        Raises:
            ConfigError: The sweep can't be composed.
        """
        swept = wiring.configs.sweep(self.overrides, **self._place)
        return [self.changed(*overrides) for overrides in swept]

    def shown(self, part: Part, *, resolve: bool = False, package: str | None = None) -> str:
        """Return the config as YAML: `job`, `hydra` or `all` of it, or its part at `package`.

        Raises:
            ConfigError: It does not compose, or has no such part.
        """
        return wiring.configs.show(
            part, self.overrides, **self._place, resolve=resolve, package=package
        )

    def composition(self, what: str) -> str:
        """Return what Hydra tells of the composition: its defaults list, tree, sources, plugins.

        Raises:
            ConfigError: It does not compose, or there is no such information.
        """
        return wiring.configs.info(what, self.overrides, **self._place)

    @property
    def _built(self) -> wiring.Built:
        return wiring.Built(self.pipeline, self.fleet)

    @property
    def _place(self) -> _Place:
        return {"config_dir": self.config_dir, "config_name": self.config_name}

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of a command that choose the same in any folder, beside the overrides."""
        folder = ("--config-dir", str(self.config_dir.absolute())) if self.config_dir else ()
        name = ("--config-name", self.config_name) if self.config_name != PRIMARY else ()
        return *folder, *name
