"""What benchmarks run on: services of our own in a folder of its own, warm, and stopped after.

The yardsticks use the same cluster and the same MLflow server, in the same process.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator import wiring
from orchestrator.controller.loop import Observer
from orchestrator.core.runs.states import RunState
from orchestrator.messages import Message
from orchestrator.service import driving

_FOREIGN = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "ORCHESTRATOR_DATABASE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Services that are up; `folder` is for files, `configs` for configs of the benchmark."""

    folder: Path
    cluster: str
    tracking: str

    @property
    def configs(self) -> Path:
        """The folder with the benchmark's own configs."""
        return self.folder / "conf"

    def request(self, overrides: Sequence[str], *, reuse: bool = False) -> driving.DriveRequest:
        """Compose and plan a run."""
        found = wiring.settings(overrides, config_dir=self.configs)
        header = driving.new_header(found, wiring.plan(found), home=_home(self.folder))
        return driving.DriveRequest(
            settings=found, header=header, home=_home(self.folder), reuse=reuse
        )

    def launch(self, request: driving.DriveRequest, observer: Observer | None = None) -> None:
        """Drive a run to its end as the command `launch` does, less its live view."""
        addresses = driving.Addresses(cluster=self.cluster, tracking=self.tracking)
        run = driving.drive_new(request, addresses, _View(observer or _ignore))
        if run.state is not RunState.SUCCEEDED:
            raise RuntimeError(f"{request.header.run} {run.state}: {run.reason}")


@contextmanager
def bench(overrides: Sequence[str], **pipelines: str) -> Iterator[Bench]:
    """Have the services up that `overrides` ask for; `pipelines` are YAML texts by name."""
    for name in _FOREIGN:
        os.environ.pop(name, None)  # noqa: TID251 - they would lead to somebody's services
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as path:
        folder = Path(path)
        (folder / "conf" / "pipeline").mkdir(parents=True)
        _home(folder).mkdir()
        for name, text in pipelines.items():
            (folder / "conf" / "pipeline" / f"{name}.yaml").write_text(text)
        found = wiring.settings(overrides, config_dir=folder / "conf")
        pools = driving.startable(found, wiring.plan(found))
        with driving.services(found, _home(folder), pools, keep=lambda: False) as addresses:
            try:
                _join(addresses.cluster)
                yield Bench(folder=folder, cluster=addresses.cluster, tracking=addresses.tracking)
            finally:
                _leave()


def _home(folder: Path) -> Path:
    return folder / "home"


def _join(address: str) -> None:
    if address:
        from orchestrator.adapters.raycluster import access

        access.connect(address)


def _leave() -> None:
    if "ray" in sys.modules:
        import ray

        ray.shutdown()


class _View(driving.Unseen):
    """A view that hands on what attempts say."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def observe(self, stage: str, attempt: int, message: Message) -> None:
        """Hand the message on."""
        self._observer(stage, attempt, message)


def _ignore(stage: str, attempt: int, message: Message) -> None:
    """Observe nothing."""
