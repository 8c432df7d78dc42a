"""A result stands for what would be made alike, and says where and how it was made."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.controller.attempt_requests import AttemptDefaults
from orchestrator.controller.controller_ports import ControllerPorts
from orchestrator.controller.loop import Controller
from orchestrator.controller.reuse import reuse_key_with
from orchestrator.core.artifact import MANIFEST_NAME, ArtifactRef
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.errors import DamagedError, StorageError
from orchestrator.core.failures.kinds import Action, FailureKind
from orchestrator.core.runs.run import Run
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.policy import Recovery
from orchestrator.core.spec.stages import Needs, Stage
from orchestrator.messages import AttemptRequest, Failed, Message, Placed, Succeeded
from tests.adapters.artifacts.shelf import put
from tests.build import accelerator, failure, header, plan, pool, stage
from tests.fakes import FakeArtifacts, FakeClock, FakeCluster, FakeGates, FakeTracker, MemoryStore

OTHER = pool("b", chip=accelerator(name="Chip 2", vendor="other"))
SAME = pool("b")
BENCH = AttemptDefaults(
    packages=("jobs",),
    code=(),
    storage="mem://",
    reuse_key=reuse_key_with(lambda one, _code: f"the source of {one.job}"),
)


@dataclass
class Lab:
    """Runs that share what they have made. Pools in `broken` fail each attempt, by this kind."""

    broken: dict[str, FailureKind] = field(default_factory=dict)
    nodes: tuple[str, ...] = ("n1",)
    clock: FakeClock = field(default_factory=FakeClock)
    store: MemoryStore = field(default_factory=MemoryStore)
    artifacts: FakeArtifacts | FsspecArtifactStore = field(default_factory=FakeArtifacts)

    def script(self, asked: AttemptRequest | Deployment) -> Sequence[tuple[float, Message]]:
        first = self.broken.get(asked.pool.name) if asked.attempt == 1 else None
        end = Failed(failure(first)) if first else Succeeded(self.ref(asked.key), {})
        return ((0.1, Placed(self.nodes)), (0.2, end))

    def ref(self, key: str) -> ArtifactRef:
        if isinstance(self.artifacts, FakeArtifacts):
            return self.artifacts.ref(key)
        return put(self.artifacts, key)

    def drive(self, name: str, one: Stage, *, pools: Sequence[str], b: Pool = OTHER) -> Run:
        head = header(plan(one, pools=pools, b=b), name)
        self.store.create(head, 0.0)
        cluster = FakeCluster(self.clock, self.store, self.script)
        deps = ControllerPorts(
            cluster=cluster,
            serving=cluster,
            store=self.store,
            artifacts=self.artifacts,
            tracker=FakeTracker(),
            clock=self.clock,
            gates=FakeGates(),
        )
        return Controller(head, deps, BENCH).drive()


def made_by(run: Run) -> tuple[str, str | None]:
    """Return where the only stage of a run stands, and which run made its result."""
    return run.stages["s"].pool, run.stages["s"].reused_from


def test_what_was_made_on_the_fallback_does_not_stand_for_the_pool_that_failed() -> None:
    lab = Lab(broken={"a": FailureKind.SOFTWARE})
    moves = stage("s", on_failure={FailureKind.SOFTWARE: Action.FALL_BACK})
    assert made_by(lab.drive("first", moves, pools=("a", "b"))) == ("b", None)
    lab.broken.clear()
    assert made_by(lab.drive("second", moves, pools=("a", "b"))) == ("a", None)
    assert made_by(lab.drive("third", moves, pools=("b",))) == ("b", "first")
    assert made_by(lab.drive("fourth", moves, pools=("a",))) == ("a", "second")


def test_the_pool_of_a_reused_result_is_the_one_that_made_it() -> None:
    lab = Lab()
    lab.drive("first", stage("s"), pools=("b",), b=SAME)
    assert made_by(lab.drive("second", stage("s"), pools=("a", "b"), b=SAME)) == ("b", "first")


def test_what_was_made_with_smaller_micro_batches_does_not_stand_for_what_is_planned() -> None:
    lab = Lab(broken={"a": FailureKind.OUT_OF_MEMORY})
    smaller = stage("s", on_failure={FailureKind.OUT_OF_MEMORY: Action.LOWER_BATCH})
    assert len(lab.drive("first", smaller, pools=("a",)).stages["s"].attempts) == 2
    lab.broken.clear()
    assert made_by(lab.drive("second", smaller, pools=("a",))) == ("a", None)


def test_what_a_shrunken_gang_made_does_not_stand_for_the_whole_one() -> None:
    lab = Lab(nodes=("n1", "n1"))
    gang = stage("s", needs=Needs(workers=4, min_workers=1))
    lab.drive("first", gang, pools=("a",))
    lab.nodes = ("n1",) * 4
    assert made_by(lab.drive("second", gang, pools=("a",))) == ("a", None)
    assert made_by(lab.drive("third", gang, pools=("a",))) == ("a", "second")


@pytest.mark.parametrize("change", [{"params": {"steps": 2}}, {"needs": Needs(workers=2)}])
def test_another_stage_is_made_anew(change: dict[str, object]) -> None:
    lab = Lab()
    lab.drive("first", stage("s"), pools=("a",))
    assert made_by(lab.drive("second", stage("s", **change), pools=("a",))) == ("a", None)
    assert made_by(lab.drive("third", stage("s"), pools=("a",))) == ("a", "first")


def test_another_python_of_the_same_chips_makes_it_anew() -> None:
    lab, other = Lab(), pool("b", python="/opt/newer/bin/python")
    lab.drive("first", stage("s"), pools=("a",))
    assert made_by(lab.drive("second", stage("s"), pools=("b",), b=other)) == ("b", None)
    assert made_by(lab.drive("third", stage("s"), pools=("b",), b=SAME)) == ("b", "first")


def test_other_variables_of_the_same_chips_make_it_anew() -> None:
    lab, other = Lab(), replace(SAME, env={"NVIDIA_TF32_OVERRIDE": "0"})
    lab.drive("first", stage("s"), pools=("a",))
    assert made_by(lab.drive("second", stage("s"), pools=("b",), b=other)) == ("b", None)
    assert made_by(lab.drive("third", stage("s"), pools=("b",), b=SAME)) == ("b", "first")


def test_a_result_is_kept_with_where_and_how_it_was_made() -> None:
    lab = Lab(broken={"a": FailureKind.NUMERICAL_DIVERGENCE})
    again = stage("s", recovery=Recovery(rate=0.5))
    run = lab.drive("first", again, pools=("a",))
    ((result, maker),) = lab.store.results.values()
    assert (result.pool, result.workers, maker) == ("a", 1, "first")
    assert result.adjust == run.stages["s"].adjust


@pytest.fixture
def kept_in(tmp_path: Path) -> FsspecArtifactStore:
    return FsspecArtifactStore(f"memory://{uuid.uuid4().hex}", tmp_path / "scratch")


def first_of(lab: Lab, artifacts: FsspecArtifactStore) -> ArtifactRef:
    """Return what the first run of a lab makes, in a store that has files."""
    lab.artifacts = artifacts
    artifact = lab.drive("first", stage("s"), pools=("a",)).stages["s"].artifact
    assert artifact is not None
    return artifact


def damage(ref: ArtifactRef, path: str) -> None:
    MemoryFileSystem().pipe_file(f"{ref.uri.removeprefix('memory:/')}/{path}", b"damaged")


def test_a_result_is_looked_up_by_its_manifest_and_no_file_is_read(
    kept_in: FsspecArtifactStore,
) -> None:
    lab = Lab()
    damage(first_of(lab, kept_in), "config.json")
    assert made_by(lab.drive("second", stage("s"), pools=("a",))) == ("a", "first")


def test_what_its_reader_found_to_be_damaged_is_made_again(kept_in: FsspecArtifactStore) -> None:
    lab = Lab()
    ref = first_of(lab, kept_in)
    damage(ref, "config.json")
    with pytest.raises(DamagedError):
        kept_in.fetch(ref)
    assert made_by(lab.drive("second", stage("s"), pools=("a",))) == ("a", None)
    assert made_by(lab.drive("third", stage("s"), pools=("a",))) == ("a", "second")


def test_a_result_whose_manifest_is_gone_or_another_is_made_again(
    kept_in: FsspecArtifactStore,
) -> None:
    lab = Lab()
    damage(first_of(lab, kept_in), MANIFEST_NAME)
    assert made_by(lab.drive("second", stage("s"), pools=("a",))) == ("a", None)
    other = Lab()
    kept_in.remove("first/s/1")
    ref = first_of(other, kept_in)
    other.store.results = {
        key: (replace(kept, artifact=replace(ref, digest="0" * 64)), run)
        for key, (kept, run) in other.store.results.items()
    }
    assert made_by(other.drive("second", stage("s"), pools=("a",))) == ("a", None)


def test_a_result_in_another_store_is_made_again(kept_in: FsspecArtifactStore) -> None:
    lab = Lab()
    lab.drive("first", stage("s"), pools=("a",))
    lab.artifacts = kept_in
    assert made_by(lab.drive("second", stage("s"), pools=("a",))) == ("a", None)


def test_a_result_stands_while_its_storage_is_away() -> None:
    class Away(FakeArtifacts):
        def stands(self, ref: ArtifactRef) -> bool:
            raise StorageError("the storage is away")

    lab = Lab()
    lab.drive("first", stage("s"), pools=("a",))
    lab.artifacts = Away()
    assert made_by(lab.drive("second", stage("s"), pools=("a",))) == ("a", "first")
