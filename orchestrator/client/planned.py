"""What a launch would do, for whoever looks at it in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType

from orchestrator.client.shown import Shown
from orchestrator.core.errors import Problem
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.plan import PlannedStage
from orchestrator.display import plans, tables
from orchestrator.service.planning import PlannedRun


class RunPlan(Shown):
    """The plan of a run that nobody has started."""

    def __init__(self, planned: PlannedRun) -> None:
        """Show what is `planned`."""
        self._planned = planned

    @property
    def stages(self) -> dict[str, PlannedStage]:
        """The stages by their names: pools in order, formats, device-hours, cost."""
        return {planned.stage.name: planned for planned in self._planned.plan.stages}

    @property
    def cost(self) -> float | None:
        """The expected cost in US dollars; `None` where a price or a time is unknown."""
        return self._planned.plan.cost

    @property
    def forecasts(self) -> Mapping[str, Mapping[FailureKind, str]]:
        """What would follow each kind of failure of a stage's first attempt, by stage."""
        return self._planned.forecasts

    @property
    def emulated(self) -> bool:
        """Whether any of its pools stands in for chips that are not there."""
        return self._planned.plan.emulated

    @property
    def refused(self) -> Sequence[Problem]:
        """Why a launch would be refused: pools that have not earned their role."""
        return self._planned.vetted.problems

    @property
    def notes(self) -> Sequence[str]:
        """What else there is to know, in lines."""
        return self._planned.notes

    def __rich__(self) -> RenderableType:
        """Return the stages with their pools, and the cost."""
        plan = self._planned.plan
        cost = "unknown" if plan.cost is None else f"${tables.dollars(plan.cost)}"
        head = f"Pipeline {plan.pipeline} on fleet {plan.fleet}; expected cost: {cost}"
        return Group(head, plans.table(plan), *map(str, self.refused), *self.notes)
