"""What `gc` removes of the code that has travelled: archives that no run needs that stays.

Each archive has marks beside it, one for each run that was given it, made before the run is
recorded. One store may serve several databases: a run that this one doesn't know is another's,
or is being launched. So an archive goes once its last mark has gone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.core import artifact_paths
from orchestrator.core.artifact import ShippedCode
from orchestrator.core.runs.run import Run
from orchestrator.ports import ArtifactStore

MB = 1e6
# What was given to a run that long ago is given by now: it is recorded, or never will be.
SECONDS_TO_BE_RECORDED = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeArchives:
    """The archives of one store; its runs are `removed`, or stay.

    `served` is the code of live revisions. `home` is the identity of this one, `now` the time of
    the database (seconds, epoch).
    """

    store: ArtifactStore
    removed: Collection[Run]
    stay: Collection[Run]
    served: Collection[ShippedCode]
    home: str
    now: float

    def lines(self) -> Iterator[str]:
        """Yield what would be removed."""
        for key in self._keys():
            marked = self._marked(key)
            if self._may_go(key, marked) and len(self._over(key, marked)) == len(marked):
                size = self.store.weight(artifact_paths.code(key)) / MB
                yield f"code {key[:12]}: {size:,.1f} MB, which no run has that stays"

    def remove(self) -> int:
        """Remove them, and the marks of runs that have them no more; return the bytes of those."""
        size = 0
        for key in self._keys():
            marked = self._marked(key)
            for run in self._over(key, marked):
                self.store.remove(artifact_paths.user_of_code(key, run))
            if self._may_go(key, marked) and not self._marked(key):  # as it is now
                size += self.store.weight(artifact_paths.code(key))
                self.store.remove(artifact_paths.code(key))
        return size

    def _keys(self) -> Sequence[str]:
        return self.store.names(artifact_paths.CODE)

    def _marked(self, key: str) -> Sequence[str]:
        return self.store.names(artifact_paths.users_of_code(key))

    def _may_go(self, key: str, marked: Sequence[str]) -> bool:
        """Whether nothing here needs an archive; what nobody here was given is not ours."""
        return key not in self._needed and (bool(marked) or key in _keys_of(self.removed))

    @property
    def _needed(self) -> set[str]:
        return _keys_of(self.stay) | {_key(code) for code in self.served}

    def _over(self, key: str, marked: Sequence[str]) -> Sequence[str]:
        """Return the runs that need an archive no more, of those that are marked to have it."""
        removed = {run.header.run for run in self.removed}
        return [run for run in marked if run in removed or self._has_ended(key, run)]

    def _has_ended(self, key: str, run: str) -> bool:
        known = any(run == other.header.run for other in self.stay)
        if known and key in self._needed:
            return False
        text = self.store.marked(artifact_paths.user_of_code(key, run))
        if text is None:  # it went meanwhile
            return False
        said = json.loads(text)
        late = self.now - float(said["at"]) > SECONDS_TO_BE_RECORDED
        return late and (known or said["home"] == self.home)


def _keys_of(runs: Collection[Run]) -> set[str]:
    return {_key(run.header.code) for run in runs if run.header.code is not None}


def _key(code: ShippedCode) -> str:
    return artifact_paths.key_of_code(code.archive.uri)
