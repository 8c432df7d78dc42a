"""How headers of runs are stored: a part of the config that most runs share is stored once.

In its place the header has its digest. Headers of earlier versions, which have it in them, read as
they are, but for jobs that have another name by now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection, Row, select

from orchestrator.adapters.database import codec
from orchestrator.adapters.database.schema import runs, shared_parts
from orchestrator.core.errors import StoreError
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.spec.moved_jobs import job_of_today
from orchestrator.core.spec.plan import PlannedStage

SHARED = ("signatures",)  # sections of a config that are large, and alike in most runs
_DIGEST = "stored under"
NEWEST_NAMED = 5


def text_of(header: RunHeader) -> tuple[str, Mapping[str, str]]:
    """Return the text of a header, and by digest the texts of the parts that it shares."""
    parts: dict[str, str] = {}
    config = dict(header.config)
    for name in SHARED:
        if config.get(name):
            text = codec.dump(config[name])
            digest = hashlib.sha256(text.encode()).hexdigest()
            parts[digest] = text
            config[name] = {_DIGEST: digest}
    return codec.dump(replace(header, config=config)), parts


class Headers:
    """Reads headers over one connection, each shared part once."""

    def __init__(self, connection: Connection) -> None:
        """Read over `connection`."""
        self._connection = connection
        self._parts: dict[str, str] = {}

    def of(self, row: Row[str, str]) -> RunHeader:
        """Return the header in a row of the runs, whole.

        Raises:
            StoreError: It is none, or a part of it isn't there.
        """
        header = codec.load(RunHeader, row.header, f"header of run {row.run!r}")
        config = dict(header.config)
        for name in SHARED:
            section = config.get(name)
            if isinstance(section, Mapping) and section.keys() == {_DIGEST}:
                config[name] = json.loads(self._part(str(section[_DIGEST]), header.run))
        stages = tuple(map(_of_today, header.plan.stages))
        return replace(header, plan=replace(header.plan, stages=stages), config=config)

    def _part(self, digest: str, run: str) -> str:
        if digest not in self._parts:
            query = select(shared_parts.c.body).where(shared_parts.c.digest == digest)
            text = self._connection.scalar(query)
            if text is None:
                message = f"header of run {run!r} lacks its part {digest[:12]!r}; restore it"
                raise StoreError(message)
            self._parts[digest] = text
        return self._parts[digest]


def _of_today(planned: PlannedStage) -> PlannedStage:
    """Return a stage with its job under the name of today."""
    job = planned.stage.job
    if job is None:
        return planned
    return replace(planned, stage=replace(planned.stage, job=job_of_today(job)))


def unknown(connection: Connection, run: str) -> str:
    """Return that there is no `run`, with the newest that there are."""
    query = select(runs.c.run).order_by(runs.c.at.desc(), runs.c.run.desc())
    names = connection.scalars(query.limit(NEWEST_NAMED)).all()
    newest = f"the newest are {', '.join(names)}" if names else "there are none yet"
    return f"no run {run!r}; {newest}"
