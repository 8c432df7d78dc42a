"""What tests of clusters share: pools, requests, and a way to drive an attempt."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from orchestrator.adapters.raycluster import access, managed_ray
from orchestrator.core.settings import ClusterSettings
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Accelerator, Pool
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import AttemptRequest, Failed, Message, Succeeded
from orchestrator.ports import Cluster
from orchestrator.supervisor.record import wait
from tests.build import accelerator, attempt_request, pool

SECONDS = 90.0  # that a busy host may take
GPU = accelerator(name="H100", vendor="Nvidia", resource="GPU")
NPU = accelerator(name="910C", vendor="Huawei", resource="NPU")
MLU = accelerator(
    name="MLU590", vendor="Cambricon", resource="MLU", visible_devices="MLU_VISIBLE_DEVICES"
)


def emulated(name: str, chip: Accelerator) -> Pool:
    return pool(name, chip=chip, devices_per_node=2, cpus_per_node=4, emulation=Emulation())


POOLS = {
    "nvidia": emulated("nvidia", GPU),
    "ascend": emulated("ascend", NPU),
    "spare": emulated("spare", MLU),
}


@contextmanager
def cluster_of(pools: Mapping[str, Pool]) -> Iterator[Path]:
    """Have a managed cluster of `pools`, which this process may join; give its home."""
    home = Path(mkdtemp(prefix="own-"))
    try:
        managed_ray.up(home, pools, ClusterSettings())
        yield home
    finally:
        access.leave()
        managed_ray.down(home)
        shutil.rmtree(home)


def request(
    job: str,
    stage: str,
    *,
    on: Pool | str = "nvidia",
    needs: Needs | None = None,
    **params: object,
) -> AttemptRequest:
    """Return a request for attempt 1 of `stage`; a stage's name must be a test's own."""
    asked = POOLS[on] if isinstance(on, str) else on
    return attempt_request(
        stage, job=job, params=params, pool=asked, needs=needs or Needs(), kill_after=2.0
    )


@dataclass(slots=True)
class Attempt:
    """An attempt that was started, and all that it has said."""

    cluster: Cluster
    key: str
    said: list[Message]

    def until(self, condition: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Poll until `condition` holds."""

        def holds() -> bool:
            self.said.extend(self.cluster.poll(self.key))
            return condition() or self.heard(Succeeded) or self.heard(Failed)

        wait(holds, seconds)
        assert condition(), f"{self.key} said only {self.said}"

    def heard(self, kind: type[Message]) -> bool:
        return any(isinstance(message, kind) for message in self.said)

    def until_heard(self, kind: type[Message], seconds: float = SECONDS) -> None:
        self.until(lambda: self.heard(kind), seconds)

    def finish(self, seconds: float = SECONDS) -> Message:
        """Poll until the outcome; return that."""
        self.until(lambda: self.heard(Succeeded) or self.heard(Failed), seconds)
        return self.said[-1]

    def of(self, kind: type[Message]) -> Sequence[Message]:
        return [message for message in self.said if isinstance(message, kind)]


def begin(cluster: Cluster, asked: AttemptRequest) -> Attempt:
    """Start what is asked for."""
    cluster.start(asked)
    return Attempt(cluster, asked.key, [])
