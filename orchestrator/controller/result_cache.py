"""The results of earlier runs, looked up before a stage starts and kept when it has succeeded.

Both are tried again for a moment where something raises; then the stage runs as if there were
none, and that is counted.
"""

from __future__ import annotations

from orchestrator.controller.attempt_requests import AttemptDefaults
from orchestrator.controller.controller_ports import ControllerPorts
from orchestrator.controller.recording import EventRecorder
from orchestrator.controller.reuse import credit, entering, standing_for
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.errors import StorageError
from orchestrator.core.runs.decide import Start
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import StageReused
from orchestrator.error_boundary import outcome
from orchestrator.messages import Succeeded

SECONDS_TO_TRY = 10.0


class ReusableResults:
    """What may stand for a stage, and for which later ones its result may stand."""

    def __init__(
        self, ports: ControllerPorts, defaults: AttemptDefaults, recorder: EventRecorder
    ) -> None:
        """Look at nothing yet."""
        self._ports, self._defaults, self._recorder = ports, defaults, recorder

    def recall(self, run: Run, command: Start) -> StageReused | None:
        """Return the earlier result that stands for the stage that `command` starts, if any."""
        recalled = outcome(
            lambda: self._recorder.patiently(lambda: self._find(run, command), SECONDS_TO_TRY)
        )
        if recalled.error is not None:
            self._ports.best_effort.failed("earlier results were not looked up", recalled.error)
        return recalled.value

    def keep(self, run: Run, name: str, result: Succeeded) -> None:
        """Keep the result of stage `name`, where it may stand for a later one."""

        def keep() -> None:
            key = self._defaults.reuse_key(run, run.stages[name])
            if key:
                kept = credit(result, run.stages[name])
                self._ports.store.remember(key, kept, run.header.run)

        self._ports.best_effort.tell(
            "results were not kept for reuse",
            lambda: self._recorder.patiently(keep, SECONDS_TO_TRY),
        )

    def _find(self, run: Run, command: Start) -> StageReused | None:
        if command.number > 1 or run.stages[command.stage].anew:
            return None
        kept = self._defaults.kept_results.get(command.stage)
        if kept is None:
            key = self._defaults.reuse_key(run, entering(run, command))
            kept = self._ports.store.recall(key) if key else None
            if kept is None:
                return None
        result, made_by = kept
        if result.artifact is not None and not self._stands(result.artifact):
            return None
        return standing_for(command, result, made_by)

    def _stands(self, ref: ArtifactRef) -> bool:
        try:
            return self._ports.artifacts.stands(ref)
        except StorageError:
            return True  # nothing is known to be damaged, and whoever reads it verifies it
